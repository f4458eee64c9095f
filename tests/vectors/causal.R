# Reference numbers for causal_effect and meta_analysis. Run: Rscript causal.R SHARED_DATA OUT.json
suppressMessages({ library(jsonlite); library(metafor) })
args <- commandArgs(trailingOnly = TRUE)
pbc <- read.csv(file.path(args[1], "survival-reference/pbc.csv"))
d <- pbc[!is.na(pbc$trt), ]
d$a <- as.integer(d$trt == 1)
d$dead <- as.integer(d$status == 2)
tight <- glm.control(epsilon = 1e-15, maxit = 100)
one <- function(y, family) {
  ps <- glm(a ~ age + albumin + log(bili), binomial, d, control = tight)
  e <- fitted(ps)
  w <- ifelse(d$a == 1, 1 / e, 1 / (1 - e))
  mu <- c(weighted.mean(y[d$a == 1], w[d$a == 1]), weighted.mean(y[d$a == 0], w[d$a == 0]))
  r <- y - ifelse(d$a == 1, mu[1], mu[2])
  v <- c(sum((w * r)[d$a == 1]^2) / sum(w[d$a == 1])^2, sum((w * r)[d$a == 0]^2) / sum(w[d$a == 0])^2)
  fit <- function(arm) predict(glm(y ~ age + albumin + log(bili), family, cbind(d, y = y)[d$a == arm, ], control = tight), cbind(d, y = y), type = "response")
  m1 <- fit(1); m0 <- fit(0)
  phi <- m1 - m0 + d$a * (y - m1) / e - (1 - d$a) * (y - m0) / (1 - e)
  smd <- function(x, w) {
    m <- c(weighted.mean(x[d$a == 1], w[d$a == 1]), weighted.mean(x[d$a == 0], w[d$a == 0]))
    s <- (var(x[d$a == 1]) + var(x[d$a == 0])) / 2
    (m[1] - m[2]) / sqrt(s)
  }
  x <- list(age = d$age, albumin = d$albumin, "log(bili)" = log(d$bili))
  list(iptw = mu[1] - mu[2], iptw_se = sqrt(sum(v)), treated = mu[1], untreated = mu[2],
       aipw = mean(phi), aipw_se = sqrt(sum((phi - mean(phi))^2)) / nrow(d), n = nrow(d),
       smd_before = sapply(x, smd, rep(1, nrow(d))), smd_after = sapply(x, smd, w), propensity = unname(coef(ps)))
}
pbc$site <- (seq_len(nrow(pbc)) - 1) %% 8
each <- function(f, family) t(sapply(split(pbc, pbc$site), function(s) summary(glm(f, family, s, control = tight))$coefficients[2, 1:2]))
meta <- function(x) {
  dl <- rma(x[, 1], sei = x[, 2], method = "DL")
  kh <- rma(x[, 1], sei = x[, 2], method = "DL", test = "knha")
  re <- rma(x[, 1], sei = x[, 2], method = "REML", control = list(threshold = 1e-14, maxiter = 1000))
  fe <- rma(x[, 1], sei = x[, 2], method = "FE")
  list(fixed = c(fe$beta, fe$se), dl = c(dl$beta, dl$se), knha = c(kh$beta, kh$se), tau2 = dl$tau2, q = dl$QE, i2 = dl$I2,
       reml = c(re$beta, re$se), reml_tau2 = re$tau2)
}
out <- list(r = R.version.string, number = one(log(d$bili) + d$protime, gaussian), binary = one(d$dead, binomial),
            meta_gaussian = meta(each(protime ~ log(bili) + age, gaussian)),
            meta_binomial = meta(each(I(status == 2) ~ log(bili) + age, binomial)))
write(toJSON(out, digits = 17, auto_unbox = TRUE, pretty = TRUE), args[2])
