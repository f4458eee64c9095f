# Data that R fits and a naive iteration does not: offsets that vary by thousands, correlations near one, large counts,
# intervals that begin late. Made here, fitted here.   Rscript tests/vectors/hard.R tests/vectors/hard.json
suppressMessages({ library(jsonlite); library(survival); library(MASS); library(geepack); library(lme4); library(nlme) })
args <- commandArgs(trailingOnly = TRUE)
set.seed(20261125)
n <- 60; k <- 5; id <- rep(1:n, each = k); t <- rep(0:(k - 1), n)
x <- rnorm(n)[id]

# rates: persons followed from a minute to ten years
years <- exp(runif(n * k, log(2e-6), log(10))); years[1:40] <- 10
counts <- rnegbin(n * k, years * exp(3 + 0.5 * x), theta = 2)
rates <- data.frame(y = counts, x, years)
nb <- glm.nb(y ~ x + offset(log(years)), rates, control = glm.control(1e-14, 200))
nb_theta <- nb$theta; for (i in 1:50) { # polish: alternate to the end
  g <- glm(y ~ x + offset(log(years)), negative.binomial(nb_theta), rates, start = coef(nb), control = glm.control(1e-15, 200))
  nb_theta <- as.numeric(theta.ml(rates$y, fitted(g), eps = 1e-14, limit = 100)) }

# counts of patients over time, with an offset
large <- data.frame(id, x, t, years = exp(runif(n * k, log(1e-3), log(100))))
large$y <- rpois(n * k, large$years * exp(4 + 0.4 * large$x + 0.5 * rnorm(n)[id]))
gee <- geeglm(y ~ x + t + offset(log(years)), data = large, id = id, family = poisson, corstr = "exchangeable", control = geese.control(epsilon = 1e-12, maxit = 500))

# thousands of events each
many <- data.frame(id, x, t, y = rpois(n * k, exp(9 + 0.3 * x + 0.05 * t + 0.4 * rnorm(n)[id])))
glmm <- glmer(y ~ x + t + (1 | id), many, poisson, control = glmerControl("bobyqa", optCtrl = list(maxfun = 1e5, rhoend = 1e-10), tolPwrss = 1e-12))

# patients who differ a hundred and ten thousand times more than their visits
close_to_one <- lapply(c(100, 10000), function(r) {
  d <- data.frame(id, t, y = (rnorm(n) * r)[id] + 0.3 * t + rnorm(n * k))
  m <- lmer(y ~ t + (1 | id), d, control = lmerControl(optimizer = "bobyqa", optCtrl = list(rhoend = 1e-12, maxfun = 1e5)))
  list(data = d, coef = unname(fixef(m)), se = unname(sqrt(diag(as.matrix(vcov(m))))), sd = attr(VarCorr(m)$id, "stddev")[[1]], sigma = sigma(m),
       loglik = as.numeric(logLik(m)))
})

# calendar years as random slopes without an intercept
calendar <- data.frame(id, year = 2010 + t, y = rnorm(n)[id] * 2 + 0.3 * t + rnorm(n * k))
m <- lmer(y ~ year + (0 + year | id), calendar, control = lmerControl(optimizer = "bobyqa", optCtrl = list(rhoend = 1e-12, maxfun = 1e5)))
years_only <- list(data = calendar, coef = unname(fixef(m)), sd = attr(VarCorr(m)$id, "stddev")[[1]], sigma = sigma(m), loglik = as.numeric(logLik(m)))

# visits that correlate at 0.999 and spread from 0.01 to 100
v <- 3; who <- rep(1:n, each = v); visit <- rep(1:v, n); spread <- c(0.01, 1, 100)
e <- (rep(rnorm(n), each = v) + 0.03 * rnorm(n * v)) * spread[visit]
visits <- data.frame(id = who, visit = paste0("v", visit), arm = rep(rbinom(n, 1, 0.5), each = v), y = 5 + spread[visit] * 0.2 + e)
visits <- visits[-c(5, 17, 60, 61), ]; visits$number <- as.integer(factor(visits$visit))
g <- gls(y ~ visit + arm, visits, corSymm(form = ~ number | id), varIdent(form = ~ 1 | visit), method = "REML",
         control = glsControl(tolerance = 1e-10, msMaxIter = 500, msTol = 1e-12, maxIter = 500))
cov_of <- function(g) { s <- g$sigma * c(1, coef(g$modelStruct$varStruct, unconstrained = FALSE))[paste0("v", 1:v)]; s[1] <- g$sigma
  r <- as.matrix(corMatrix(g$modelStruct$corStruct)[[1]]); unname(outer(s, s) * r) }
mmrm <- list(data = visits[c("id", "visit", "arm", "y")], coef = unname(coef(g)), loglik = as.numeric(logLik(g)), covariance = cov_of(g))

# who enters late is not yet at risk
late <- data.frame(start = round(rexp(200, 1 / 100)), x = rnorm(200)); late$stop <- late$start + 1 + round(rexp(200, exp(0.7 * late$x) / 200))
late$event <- rbinom(200, 1, 0.7)
cox <- coxph(Surv(start, stop, event) ~ x, late, ties = "efron")
con <- concordance(Surv(start, stop, event) ~ x, late, reverse = TRUE)

# patients who hardly differ, and patients who differ in their counts by thousands
alike <- data.frame(id, x, y = rpois(n * k, 100 * exp(0.1 * x + 0.05 * rnorm(n)[id])))
small <- glmer(y ~ x + (1 | id), alike, poisson, control = glmerControl("bobyqa", optCtrl = list(maxfun = 1e5, rhobeg = 1e-3, rhoend = 1e-11), tolPwrss = 1e-12))
apart <- data.frame(id, x, y = rpois(n * k, exp(4 + 0.2 * x + 1.8 * rnorm(n)[id])))
wide <- geeglm(y ~ x, data = apart, id = id, family = poisson, corstr = "exchangeable", control = geese.control(epsilon = 1e-12, maxit = 500))

# an offset is part of what is predicted
shifted <- data.frame(t = ceiling(rexp(200, 1 / 50)), s = rbinom(200, 1, 0.8), x = rnorm(200), o = runif(200))
with_offset <- coxph(Surv(t, s) ~ x + offset(o), shifted, ties = "efron")
at <- survfit(with_offset, newdata = data.frame(x = c(0.5, 0.5), o = c(0.2, 0.9)))

out <- list(
  glmm_small = list(data = alike, coef = unname(fixef(small)), sd = attr(VarCorr(small)$id, "stddev")[[1]], loglik = as.numeric(logLik(small))),
  gee_wide = list(data = apart, coef = unname(coef(wide)), se = summary(wide)$coefficients[, 2], correlation = as.numeric(wide$geese$alpha)),
  offset = list(data = shifted, times = c(10, 30, 60), surv = unname(summary(at, times = c(10, 30, 60))$surv)),
  negative_binomial = list(data = rates, coef = unname(coef(g2 <- glm(y ~ x + offset(log(years)), negative.binomial(nb_theta), rates, start = coef(nb), control = glm.control(1e-15, 200)))), theta = nb_theta),
  gee = list(data = large, coef = unname(coef(gee)), se = summary(gee)$coefficients[, 2], correlation = as.numeric(gee$geese$alpha)),
  glmm = list(data = many, coef = unname(fixef(glmm)), sd = attr(VarCorr(glmm)$id, "stddev")[[1]], loglik = as.numeric(logLik(glmm))),
  lmm = close_to_one, lmm_years = years_only, mmrm = mmrm,
  late = list(data = late, coef = unname(coef(cox)), concordance = as.numeric(con$concordance), count = as.list(con$count))
)
write(toJSON(out, digits = 15, auto_unbox = TRUE), args[1])
