# Reference numbers for glm. Run: Rscript glm.R SHARED_DATA OUT.json
suppressMessages(library(jsonlite))
args <- commandArgs(trailingOnly = TRUE)
lung <- read.csv(file.path(args[1], "survival-reference/lung.csv"))
pbc <- read.csv(file.path(args[1], "survival-reference/pbc.csv"))
g <- function(fit) {
  s <- summary(fit)$coefficients
  list(terms = rownames(s), coef = unname(s[, 1]), se = unname(s[, 2]), z = unname(s[, 3]), p = unname(s[, 4]),
       deviance = deviance(fit), null_deviance = fit$null.deviance, loglik = as.numeric(logLik(fit)), n = nobs(fit))
}
ctl <- glm.control(epsilon = 1e-14, maxit = 100)
out <- list(
  version = R.version.string,
  gaussian = g(glm(wt.loss ~ age + sex + factor(ph.ecog), data = subset(lung, ph.ecog < 3), control = ctl)),
  interaction = g(glm(bili ~ age * sex + I(albumin^2), data = pbc, control = ctl)),
  no_intercept = g(glm(bili ~ 0 + age + albumin, data = pbc, control = ctl)),
  binomial = g(glm(I(status == 2) ~ age + sex + log(bili), family = binomial, data = pbc, control = ctl)),
  poisson = g(glm(stage ~ age + albumin + offset(log(time)), family = poisson, data = pbc, control = ctl)),
  spline = g(glm(I(status == 2) ~ splines::ns(age, knots = c(50, 60), Boundary.knots = c(35, 70)) + sex, family = binomial, data = pbc, control = ctl))
)
write_json(out, args[2], digits = NA, auto_unbox = FALSE, pretty = TRUE)
