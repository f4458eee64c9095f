# Reference numbers for weighted survival. Run: Rscript weighted.R SHARED_DATA OUT.json
suppressMessages({ library(survival); library(jsonlite) })
args <- commandArgs(trailingOnly = TRUE)
grid <- function(t, w) if (w == 0) t else ceiling(round(t / w, 9)) * w
ctl <- coxph.control(eps = 1e-11, iter.max = 50, toler.chol = 1e-13)
cox <- function(fit) list(coef = unname(coef(fit)), se = unname(sqrt(diag(fit$naive.var))), robust_se = unname(sqrt(diag(fit$var))),
                          loglik = fit$loglik, n = fit$n, events = fit$nevent, wald = sum(coef(fit) * solve(fit$var, coef(fit))))
from <- function(name) read.csv(file.path(args[1], name))
pbc <- from("survival-reference/pbc.csv")
pbc$w <- round(exp(1.2 * sin(pbc$id)), 3)
pbc$far <- pbc$w * 1e12
pbc$near <- pbc$w * 1e-12
b2 <- from("bladder-recurrence/bladder2.csv")
b2$w <- 0.5 + b2$size / 4 + (b2$id %% 7) / 3
out <- list(r = R.version.string)
for (ties in c("efron", "breslow")) for (width in c(0, 30)) {
  d <- transform(pbc, time = grid(time, width))
  for (name in c("w", "far", "near")) {
    d$weight <- d[[name]]
    out[[paste(name, ties, width, sep = "_")]] <- cox(coxph(Surv(time, status == 2) ~ age + log(bili) + albumin, d, weights = weight, robust = TRUE, ties = ties, control = ctl))
  }
}
for (ties in c("efron", "breslow"))
  out[[paste0("ag_", ties)]] <- cox(coxph(Surv(start, stop, event) ~ rx + size + number + cluster(id), b2, weights = w, ties = ties, control = ctl))
out$strata <- cox(coxph(Surv(start, stop, event) ~ rx + size + number + strata(enum) + cluster(id), b2, weights = w, control = ctl))
pbc$site <- (seq_len(nrow(pbc)) - 1) %% 3
out$by_site <- cox(coxph(Surv(time, status == 2) ~ age + log(bili) + albumin + strata(site), pbc, weights = w, robust = TRUE, control = ctl))

# Hazard ratio, curves and restricted means of two arms of weighted rows (start, stop], errors by person.
arms <- function(d, tau, ties = "efron") {
  fit <- coxph(Surv(start, stop, event) ~ a, d, weights = w, cluster = id, ties = ties, control = ctl)
  each <- lapply(0:1, function(k) survfit(Surv(start, stop, event) ~ 1, d[d$a == k, ], weights = w, id = id, robust = TRUE, influence = TRUE))
  f <- sapply(c("time", "n.event", "surv", "std.err", "lower", "upper"), function(v) c(each[[1]][[v]], each[[2]][[v]]), simplify = FALSE)
  arm <- rep(0:1, sapply(each, function(e) length(e$time)))
  means <- lapply(0:1, function(k) {
    at <- f$time[arm == k]
    width <- diff(pmin(c(at, Inf), tau))
    list(mean = min(at[1], tau) + sum(width * f$surv[arm == k]), influence = drop(each[[k + 1]]$influence.surv %*% width))
  })
  ids <- unique(d$id)
  own <- sapply(means, function(m) { v <- m$influence[match(ids, names(m$influence))]; ifelse(is.na(v), 0, v) })
  some <- lapply(0:1, function(k) { at <- which(arm == k & f$n.event > 0); at[seq(1, length(at), by = 4)] })
  curve <- function(v) lapply(some, function(at) v[at])
  list(cox = cox(fit), time = curve(f$time), surv = curve(f$surv), se = curve(f$std.err), lower = curve(f$lower), upper = curve(f$upper),
       rmst = sapply(means, `[[`, "mean"), rmst_se = sqrt(colSums(own^2)),
       difference = means[[2]]$mean - means[[1]]$mean, difference_se = sqrt(sum((own[, 2] - own[, 1])^2)))
}
tight <- glm.control(epsilon = 1e-15, maxit = 100)
treated <- pbc[!is.na(pbc$trt), ]
treated$a <- as.integer(treated$trt == 1)
treated$start <- -1
treated$event <- treated$status == 2
one <- function(width, stabilised, low, high, ties, tau) {
  d <- treated
  d$stop <- grid(d$time, width)
  ps <- glm(a ~ age + albumin + log(bili), binomial, d, control = tight)
  e <- fitted(ps)
  share <- if (stabilised) mean(d$a) else 1
  rest <- if (stabilised) 1 - share else 1
  raw <- ifelse(d$a == 1, share / e, rest / (1 - e))
  d$w <- pmin(pmax(raw, low), high)
  smd <- function(x, w) {
    m <- c(weighted.mean(x[d$a == 1], w[d$a == 1]), weighted.mean(x[d$a == 0], w[d$a == 0]))
    (m[1] - m[2]) / sqrt((var(x[d$a == 1]) + var(x[d$a == 0])) / 2)
  }
  x <- list(d$age, d$albumin, log(d$bili))
  c(arms(d, tau, ties),
    list(smd_before = sapply(x, smd, rep(1, nrow(d))), smd_after = sapply(x, smd, d$w), propensity = unname(coef(ps)),
         mean_weight = c(mean(d$w[d$a == 0]), mean(d$w[d$a == 1])), cut = c(sum((d$w != raw)[d$a == 0]), sum((d$w != raw)[d$a == 1])),
         effective = sapply(0:1, function(k) sum(d$w[d$a == k])^2 / sum(d$w[d$a == k]^2))))
}
out$effect_plain <- one(0, FALSE, 0, Inf, "efron", 3000)
out$effect_grid <- one(30, TRUE, 0, Inf, "breslow", 3000)
out$effect_cut <- one(30, TRUE, 0.9, 1.2, "efron", 2000)

# Clones of two strategies: no start of treatment within the grace period, a start within it.
set.seed(20160415)
n <- 600
sim <- data.frame(id = seq_len(n), x = round(rnorm(n), 2), sex = sample(c("f", "m"), n, TRUE))
start <- ceiling(rexp(n, exp(-4 + 0.5 * sim$x + 0.4 * (sim$sex == "m"))))
death <- ceiling(rexp(n, exp(-4.6 + 0.6 * sim$x)))
late <- start < death
death[late] <- (start + ceiling((death - start) * 1.6))[late]
end <- pmin(death, sample(30:200, n, TRUE))
sim$time <- end
sim$event <- as.integer(death <= end)
sim$treated_at <- ifelse(start < end, start, NA)
sim$time[1:3] <- 0:2
sim$treated_at[1:3] <- NA
sim$treated_at[4] <- 0
cloned <- function(width, grace, cuts, stabilised, low, high, ties, tau) {
  d <- sim
  d$t <- grid(d$time, width)
  d$b <- grid(ifelse(is.na(d$treated_at), Inf, d$treated_at), width)
  d$b[d$b >= d$t] <- Inf
  started <- d$b <= grace
  ends <- c(cuts, grace)
  before <- c(-Inf, cuts)
  past <- d$t > grace
  m1 <- glm(!started ~ x + sex, binomial, d, subset = past, control = tight)
  seen <- do.call(rbind, lapply(seq_along(ends), function(j) {
    s <- d[d$b > before[j] & d$t > ends[j], ]
    transform(s, j = j, y = b <= ends[j])
  }))
  right <- if (length(ends) > 1) y ~ 0 + factor(j) + x + sex else y ~ x + sex
  m0 <- glm(right, binomial, seen, control = tight)
  stay1 <- if (stabilised) mean(started[past]) else 1
  w1 <- stay1 / (1 - predict(m1, d, type = "response"))
  w0 <- list()
  whole <- 1
  for (j in seq_along(ends)) {
    stay <- if (stabilised) 1 - mean(seen$y[seen$j == j]) else 1
    whole <- whole * stay / (1 - predict(m0, transform(d, j = j), type = "response"))
    w0[[j]] <- whole
  }
  dead <- d$event == 1
  passed <- past & !started
  until <- list(ifelse(started, d$b, d$t), ifelse(passed, grace, d$t))
  had <- list(dead & !started, dead & !passed)
  rows <- NULL
  for (a in 0:1) {
    edges <- c(-1, if (a == 1) grace else ends, Inf)
    weights <- c(list(rep(1, n)), if (a == 1) list(w1) else w0)
    for (k in seq_along(weights)) {
      keep <- until[[a + 1]] > edges[k]
      rows <- rbind(rows, data.frame(id = d$id, a = a, start = edges[k], stop = pmin(until[[a + 1]], edges[k + 1]),
                                     event = had[[a + 1]] & until[[a + 1]] <= edges[k + 1], w = pmin(pmax(weights[[k]], low), high))[keep, ])
    }
  }
  x <- cbind(d$x, as.numeric(d$sex == "m"))
  w <- pmin(pmax(ifelse(started, w1, w0[[length(ends)]]), low), high)
  smd <- function(w) apply(x, 2, function(v) {
    (weighted.mean(v[past & started], w[past & started]) - weighted.mean(v[passed], w[passed])) / sqrt((var(v[past & started]) + var(v[passed])) / 2)
  })
  c(arms(rows, tau, ties), list(smd_before = smd(rep(1, n)), smd_after = smd(w), persons = c(sum(passed), sum(past & started)),
                                mean_weight = c(mean(w[passed]), mean(w[past & started]))))
}
out$simulated <- as.list(sim)
out$clones_exact <- cloned(0, 30, numeric(0), TRUE, 0, Inf, "efron", 120)
out$clones_grid <- cloned(5, 30, c(10, 20), FALSE, 0, Inf, "breslow", 120)
out$clones_cut <- cloned(5, 40, 20, TRUE, 0.8, 1.3, "efron", 100)

# Curves of weighted rows by group, errors by person.
curves <- function(d, tau) lapply(split(d, d$g), function(one) {
  f <- survfit(Surv(start, stop, event) ~ 1, one, weights = w, id = id, robust = TRUE, influence = TRUE)
  width <- diff(pmin(c(f$time, Inf), tau))
  some <- which(f$n.event > 0)
  list(time = f$time[some], surv = f$surv[some], se = f$std.err[some], lower = f$lower[some], upper = f$upper[some],
       rmst = min(f$time[1], tau) + sum(width * f$surv), rmst_se = sqrt(sum((f$influence.surv %*% width)^2)))
})
by_sex <- transform(pbc, g = sex, start = -1, event = status == 2)
out$curves_exact <- curves(transform(by_sex, stop = time), 3000)
out$curves_grid <- curves(transform(by_sex, stop = grid(time, 30), w = near), 3000)
out$curves_late <- curves(transform(b2, g = "all"), 24)
write(toJSON(out, digits = 17, auto_unbox = TRUE, pretty = TRUE), args[2])
