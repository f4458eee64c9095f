# Leave-one-site-out validation on survival::pbc, three sites by row.   Rscript tests/vectors/validate_panel.R OUT.json
# exact: the others' fit by glmnet. step: one Newton step of a ridge fit, by hand, from score and information of the others.
suppressMessages({ library(survival); library(glmnet); library(jsonlite) })
args <- commandArgs(trailingOnly = TRUE)
names <- c("age", "albumin", "copper", "protime", "ast", "platelet")
p <- pbc[complete.cases(pbc[, names]), ]
x <- cbind(as.matrix(p[, names]), log_bili = log(p$bili))
site <- (seq_len(nrow(x)) - 1) %% 3
dead <- as.numeric(p$status == 2)
spread <- function(m) apply(m, 2, function(v) sqrt(mean((v - mean(v))^2)))
sat <- function(time, d) { n <- table(time[d == 1]); sum(n * log(n)) }

# One family: what its site's rows give at b, and how the line in the score is fitted.
cox <- list(
  columns = x, y = p$time,
  at = function(b, i) {
    f <- coxph(Surv(p$time[i], dead[i]) ~ x[i, ], init = b, iter.max = 0, ties = "breslow")
    list(score = colSums(residuals(f, "score")), h = solve(f$var))
  },
  loss = function(b, i) { f <- coxph(Surv(p$time[i], dead[i]) ~ x[i, ], init = b, iter.max = 0, ties = "breslow"); -2 * (f$loglik[2] + sat(p$time[i], dead[i])) },
  each = sum(dead), order = Surv(p$time, dead), reverse = TRUE,
  line = function(s) summary(coxph(Surv(p$time, dead) ~ s + strata(site), ties = "breslow"))$coef[1, c(1, 3)])
one <- cbind(1, x)
binomial_ <- list(
  columns = one, y = dead,
  at = function(b, i) { m <- plogis(one[i, ] %*% b)[, 1]; list(score = colSums(one[i, ] * (dead[i] - m)), h = t(one[i, ]) %*% (one[i, ] * m * (1 - m))) },
  loss = function(b, i) -2 * sum(dbinom(dead[i], 1, plogis(one[i, ] %*% b)[, 1], log = TRUE)),
  each = nrow(x), order = dead, reverse = FALSE,
  line = function(s) summary(glm(dead ~ s, family = binomial(), control = list(epsilon = 1e-14)))$coef[2, 1:2])

# The others' coefficients (sites x penalties): exact by glmnet, or by one step of a ridge fit from that of all.
sums <- function(family, b, sites) { # score and information over some sites, each in its own risk sets
  parts <- lapply(sites, function(r) family$at(b, site == r))
  list(score = Reduce(`+`, lapply(parts, `[[`, "score")), h = Reduce(`+`, lapply(parts, `[[`, "h")))
}
step <- function(family, lambdas) lapply(lambdas, function(l) {
  free <- ncol(family$columns) > ncol(x)
  newton <- function(b, sites) {
    i <- site %in% sites; a <- sums(family, b, sites); s <- spread(x[i, ])
    solve(a$h + diag(sum(i) * l * c(if (free) 0, s^2)), a$h %*% b + a$score)[, 1]
  }
  b <- rep(0, ncol(family$columns))
  for (k in 1:50) b <- newton(b, 0:2)
  lapply(0:2, function(s) newton(b, setdiff(0:2, s)))
})

# What validation says of such coefficients: each site's penalty is the one with the least loss at the others.
judge <- function(family, fits) {
  loss <- sapply(fits, function(f) sapply(0:2, function(s) family$loss(f[[s + 1]], site == s))) # sites x penalties
  chosen <- sapply(1:3, function(s) which.min(colSums(loss[-s, , drop = FALSE])))
  score <- rep(0, nrow(x))
  for (s in 0:2) score[site == s] <- (family$columns[site == s, ] %*% fits[[chosen[s + 1]]][[s + 1]])[, 1]
  c_ <- concordance(family$order ~ score + strata(site), reverse = family$reverse, timewt = "n")
  line <- family$line(score)
  list(loss_mean = colSums(loss) / family$each, loss_out_of_site = sum(loss[cbind(1:3, chosen)]) / family$each, concordance = unname(c_$concordance), concordance_se = sqrt(c_$var), slope = unname(line[1]), slope_se = unname(line[2]), chosen = chosen)
}
refit <- function(family, name, lambdas, alpha) lapply(lambdas, function(l) lapply(0:2, function(s) {
  i <- site != s
  y <- if (name == "cox") stratifySurv(Surv(p$time[i] / 1000, dead[i]), site[i]) else family$y[i]
  fit <- glmnet(x[i, ], y, family = name, alpha = alpha, lambda = l, thresh = 1e-20, maxit = 1e7)
  if (name == "cox") as.numeric(fit$beta) else c(fit$a0, as.numeric(fit$beta))
}))
lambdas <- c(1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
out <- list(n = nrow(x), lambda = lambdas)
for (name in c("cox", "binomial")) {
  family <- if (name == "cox") cox else binomial_
  out[[name]] <- list(step = judge(family, step(family, lambdas)), ridge = judge(family, refit(family, name, lambdas, 0)), lasso = judge(family, refit(family, name, lambdas, 1)))
}
y <- log(p$bili); z <- cbind(1, x[, names]); x <- x[, names]
# glmnet divides the ridge part by the outcome's spread, so the comparison is of the lasso alone
gaussian_ <- list(columns = z, y = y, loss = function(b, i) sum((y[i] - (z[i, ] %*% b)[, 1])^2), each = nrow(x), order = y, reverse = FALSE,
  line = function(s) summary(lm(y ~ s))$coef[2, 1:2])
out$gaussian <- list(lasso = judge(gaussian_, refit(gaussian_, "gaussian", lambdas, 1)))
write(toJSON(out, digits = 15, auto_unbox = TRUE), args[1])
