# Reference numbers for the regression models. Run: Rscript regression.R SHARED_DATA OUT.json
# Packages fit first; where one stops early its answer is finished here by Newton steps and must agree with it.
suppressMessages({library(jsonlite); library(survival); library(MASS); library(geepack); library(glmnet)})
args <- commandArgs(trailingOnly = TRUE)
from <- function(p) read.csv(file.path(args[1], p))
pbc <- from("survival-reference/pbc.csv")
lung <- from("survival-reference/lung.csv")
pbc$died <- as.numeric(pbc$status == 2)
near <- function(a, b, tol = 1e-8) stopifnot(all(abs(unname(a) - unname(b)) <= tol * (1 + abs(unname(b)))))
se <- function(v) unname(sqrt(diag(v)))
# f(par) gives list(l, g, h): value, gradient, Hessian. Newton steps, halved while the value falls.
newton <- function(par, f) {
  for (i in 1:100) {
    at <- f(par); step <- solve(-at$h, at$g); k <- 0
    while (!isTRUE(f(par + step)$l >= at$l - 1e-9) && k < 40) { step <- step / 2; k <- k + 1 }
    par <- par + step
    if (max(abs(step) / (1e-8 + abs(par))) < 1e-14) break
  }
  at <- f(par)
  list(par = unname(par), l = at$l, se = se(solve(-at$h)), gradient = max(abs(at$g)))
}

# --- generalised linear models. glm stops on the deviance, so restart it until the coefficients stand still.
still <- function(...) {
  fit <- suppressWarnings(glm(..., control = glm.control(1e-14, 200)))
  for (i in 1:60) {
    last <- coef(fit)
    fit <- suppressWarnings(glm(..., start = last, control = glm.control(1e-14, 200)))
    if (max(abs(coef(fit) - last) / abs(coef(fit))) < 1e-15) break
  }
  fit
}
g <- function(f, d, fam = binomial()) {
  d <- na.omit(d[, all.vars(f)])
  fit <- still(f, family = fam, data = d)
  null <- still(update(f, . ~ 1), family = fam, data = d)
  s <- summary(fit); mu <- fitted(fit); eta <- fit$linear.predictors
  score <- crossprod(model.matrix(fit), (fit$y - mu) * fam$mu.eta(eta) / fam$variance(mu))
  list(terms = names(coef(fit)), coef = unname(coef(fit)), se = unname(s$coefficients[, 2]), loglik = c(logLik(fit)),
       loglik_null = c(logLik(null)), coef_null = unname(coef(null)), n = nobs(fit), deviance = deviance(fit), null_deviance = fit$null.deviance,
       dispersion = s$dispersion, gradient = max(abs(score)))
}

# --- negative binomial: recurrences of each patient. se and se_theta as summary.glm.nb: the one given the other;
# se_joint: the inverse of the full observed information of (coefficients, theta).
b1 <- from("bladder-recurrence/bladder1.csv")
first <- b1[!duplicated(b1$id), ]
bl <- data.frame(y = as.numeric(tapply(b1$status == 1, b1$id, sum)[as.character(first$id)]),
                 rx = first$treatment, size = first$size, number = first$number)
nbl <- function(x, y) function(p) {
  t <- p[length(p)]; mu <- exp(drop(x %*% p[-length(p)])); s <- mu + t
  h <- crossprod(x, -(y + t) * t * mu / s^2 * x); o <- crossprod(x, (y - mu) * mu / s^2)
  list(l = sum(dnbinom(y, t, mu = mu, log = TRUE)),
       g = c(crossprod(x, t * (y - mu) / s), sum(digamma(y + t) - digamma(t) + log(t) + 1 - log(s) - (y + t) / s)),
       h = rbind(cbind(h, o), c(o, sum(trigamma(y + t) - trigamma(t) + 1 / t - 2 / s + (y + t) / s^2))))
}
nb <- function(f) {
  loose <- glm.nb(f, data = bl, control = glm.control(1e-10, 100))
  like <- nbl(model.matrix(loose), bl$y)
  fit <- newton(c(coef(loose), loose$theta), like)
  k <- length(fit$par); theta <- fit$par[k]
  r <- still(f, family = negative.binomial(theta), data = bl)
  near(coef(r), fit$par[-k], 1e-12); near(loose$twologlik, 2 * fit$l)
  out <- list(terms = names(coef(r)), coef = fit$par[-k], se = se(summary(r, dispersion = 1)$cov.scaled), theta = theta,
              se_theta = sqrt(-1 / like(fit$par)$h[k, k]), se_joint = fit$se, loglik = fit$l, twologlik = 2 * fit$l, n = nrow(bl),
              deviance = deviance(r), null_deviance = r$null.deviance, gradient = fit$gradient)
  near(out$se, summary(loose)$coefficients[, 2], 1e-5); near(out$se_theta, loose$SE.theta, 1e-5)
  out
}
nb0 <- nb(y ~ 1)
negative <- c(nb(y ~ rx + size + number), list(loglik_null = nb0$loglik, theta_null = nb0$theta, data = as.list(bl)))

# --- ordinal: P(Y <= k) = F(threshold[k] - x b); se from the observed information of (thresholds, coefficients).
staged <- pbc[!is.na(pbc$stage), ]
y4 <- staged$stage; counts <- as.numeric(table(y4)); loglik4 <- sum(counts * log(counts / sum(counts)))
staged$st <- factor(y4, ordered = TRUE)
links <- list(logit = list(plogis, dlogis, function(z) dlogis(z) * (1 - 2 * plogis(z))),
              probit = list(pnorm, dnorm, function(z) -z * dnorm(z)),
              cloglog = list(function(z) -expm1(-exp(z)), function(z) exp(z - exp(z)), function(z) exp(z - exp(z)) * (1 - exp(z))))
ordinal <- function(link) {
  loose <- ordinal::clm(st ~ age + albumin + log(bili), data = staged, link = link)
  x <- model.matrix(~ age + albumin + log(bili), staged)[, -1]; n <- nrow(x); F <- links[[link]]
  up <- cbind(1 * outer(y4, 1:3, "=="), -x * (y4 < 4)); down <- cbind(1 * outer(y4 - 1, 1:3, "=="), -x * (y4 > 1))
  fit <- newton(c(loose$alpha, loose$beta), function(p) {
    u <- ifelse(y4 < 4, drop(up %*% p), Inf); v <- ifelse(y4 > 1, drop(down %*% p), -Inf)
    at <- function(f, z) { w <- f(ifelse(is.finite(z), z, 0)); ifelse(is.finite(z), w, 0) }
    pr <- ifelse(y4 < 4, at(F[[1]], u), 1) - at(F[[1]], v)
    s <- (at(F[[2]], u) * up - at(F[[2]], v) * down) / pr
    list(l = sum(log(pr)), g = colSums(s),
         h = crossprod(up, at(F[[3]], u) / pr * up) - crossprod(down, at(F[[3]], v) / pr * down) - crossprod(s))
  })
  near(fit$par, coef(loose), 1e-6); near(fit$se, se(vcov(loose)), 1e-5); near(fit$l, c(logLik(loose)), 1e-10)
  p <- polr(st ~ age + albumin + log(bili), data = staged, Hess = TRUE, method = if (link == "logit") "logistic" else link)
  near(c(p$zeta, coef(p)), fit$par, 1e-3); near(c(logLik(p)), fit$l, 1e-7)
  list(thresholds = fit$par[1:3], threshold_names = c("1|2", "2|3", "3|4"), threshold_se = fit$se[1:3], terms = colnames(x),
       coef = fit$par[4:6], se = fit$se[4:6], loglik = fit$l, loglik_null = loglik4, n = n, deviance = -2 * fit$l, gradient = fit$gradient)
}

# --- multinomial: log odds of levels 2, 3, 4 against 1.
multinomial <- function() {
  loose <- nnet::multinom(factor(stage) ~ age + log(bili), data = staged, trace = FALSE, maxit = 1000, reltol = 1e-14, Hess = TRUE)
  x <- model.matrix(~ age + log(bili), staged); k <- ncol(x); yy <- outer(y4, 2:4, "==")
  fit <- newton(c(t(coef(loose))), function(b) {
    eta <- x %*% matrix(b, k); top <- pmax(0, apply(eta, 1, max)); den <- exp(-top) + rowSums(exp(eta - top)); pr <- exp(eta - top) / den
    h <- matrix(0, 3 * k, 3 * k)
    for (i in 1:3) for (j in 1:3) h[(i - 1) * k + 1:k, (j - 1) * k + 1:k] <- -crossprod(x, pr[, i] * ((i == j) - pr[, j]) * x)
    list(l = sum(yy * eta) - sum(top + log(den)), g = c(crossprod(x, yy - pr)), h = h)
  })
  near(fit$par, c(t(coef(loose))), 1e-4); near(fit$se, se(vcov(loose)), 1e-4); near(fit$l, c(logLik(loose)))
  by <- function(v) setNames(lapply(1:3, function(i) v[(i - 1) * k + 1:k]), 2:4)
  list(terms = colnames(x), reference = 1, coef = by(fit$par), se = by(fit$se), loglik = fit$l, loglik_null = loglik4,
       n = nrow(x), deviance = -2 * fit$l, gradient = fit$gradient)
}

# --- parametric survival: log T = x b + scale W. se_log_scale belongs to log(scale); exponential has scale 1.
lc <- na.omit(lung[, c("time", "status", "age", "sex", "ph.ecog")])
parametric <- function(dist) {
  again <- function(f) {
    fit <- survreg(f, lc, dist = dist, control = survreg.control(maxiter = 200, rel.tolerance = 1e-12))
    for (i in 1:3) fit <- suppressWarnings(survreg(f, lc, dist = dist, init = c(coef(fit), if (dist != "exponential") log(fit$scale)),
                                                   control = survreg.control(maxiter = 200, rel.tolerance = 1e-15)))
    fit
  }
  fit <- again(Surv(time, status == 2) ~ age + sex + ph.ecog); null <- again(Surv(time, status == 2) ~ 1)
  # The log-density and log-survival of W with two derivatives each, again from the beginning, to finish and to check.
  x <- model.matrix(~ age + sex + ph.ecog, lc); d <- lc$status == 2; free <- dist != "exponential"
  w <- function(z) switch(dist,
    loglogistic = list(ifelse(d, z - 2 * log1p(exp(z)), -log1p(exp(z))), ifelse(d, 1, 0) - (1 + d) * plogis(z), -(1 + d) * dlogis(z)),
    lognormal = { m <- dnorm(z) / pnorm(-z)
      list(ifelse(d, dnorm(z, log = TRUE), pnorm(-z, log.p = TRUE)), ifelse(d, -z, -m), ifelse(d, -1, -m * (m - z))) },
    list(d * z - exp(z), d - exp(z), -exp(z)))
  like <- function(x) function(p) {
    k <- ncol(x); s <- if (free) exp(p[k + 1]) else 1
    z <- (log(lc$time) - drop(x %*% p[1:k])) / s; a <- w(z); dz <- cbind(-x / s, if (free) -z)
    h <- crossprod(dz, a[[3]] * dz)
    if (free) { o <- crossprod(x, a[[2]]) / s; h[1:k, k + 1] <- h[1:k, k + 1] + o; h[k + 1, 1:k] <- h[k + 1, 1:k] + o; h[k + 1, k + 1] <- h[k + 1, k + 1] + sum(a[[2]] * z) }
    list(l = sum(a[[1]]) - sum(d * (log(s) + log(lc$time))), g = c(crossprod(dz, a[[2]])) - if (free) c(numeric(k), sum(d)) else 0, h = h)
  }
  par <- function(f) c(coef(f), if (free) log(f$scale))
  own <- newton(par(fit), like(x)); own0 <- newton(par(null), like(x[, 1, drop = FALSE]))
  near(own$par, par(fit)); near(own$se, se(vcov(fit)), 1e-7); near(c(own0$l, own$l), c(null$loglik[2], fit$loglik[2]), 1e-11)
  k <- ncol(x)
  list(terms = colnames(x), coef = own$par[1:k], se = own$se[1:k], log_scale = if (free) own$par[k + 1] else 0,
       se_log_scale = if (free) own$se[k + 1], covariance_se = own$se, loglik = own$l, loglik_null = own0$l, n = nrow(x), events = sum(d), gradient = own$gradient)
}

# --- piecewise exponential, intervals (0,90], (90,180], (180,365], (365,730], (730,Inf).
# loglik as Poisson counts; loglik_hazard as survival: it lacks sum(events * log(person-time)).
cuts <- c(90, 180, 365, 730)
lung$event <- as.numeric(lung$status == 2)
pw <- survSplit(Surv(time, event) ~ age + sex, lung, cut = cuts, episode = "interval", start = "t0")
pw$len <- pw$time - pw$t0
piecewise <- local({
  fam <- poisson(); d <- pw
  fit <- still(event ~ 0 + factor(interval) + age + sex + offset(log(len)), family = fam, data = d)
  base <- still(event ~ 0 + factor(interval) + offset(log(len)), family = fam, data = d)
  flat <- still(event ~ 1 + offset(log(len)), family = fam, data = d)
  lost <- sum(d$event * log(d$len)); mu <- fitted(fit)
  near(sum(d$event * log(mu / d$len) - mu), c(logLik(fit)) - lost, 1e-12)
  list(cuts = c(0, cuts), terms = c(paste0("interval", 1:5), "age", "sex"), coef = unname(coef(fit)), se = se(vcov(fit)),
       loglik = c(logLik(fit)), loglik_baseline = c(logLik(base)), loglik_null = c(logLik(flat)),
       loglik_hazard = c(logLik(fit)) - lost, loglik_hazard_baseline = c(logLik(base)) - lost, loglik_hazard_null = c(logLik(flat)) - lost,
       deviance = deviance(fit), n = nrow(lung), rows = nrow(d), events = unname(tapply(d$event, d$interval, sum)),
       person_time = unname(tapply(d$len, d$interval, sum)), gradient = max(abs(crossprod(model.matrix(fit), d$event - mu))))
})

# --- discrete time, the same cuts. A person contributes interval (a, b] iff time > a (at risk at its start) and either
# dies in it (outcome 1) or lives to its end, time >= b, dying later or censored then or later (outcome 0). A person
# censored inside an interval does not contribute it. Nobody can live to the end of (730, Inf): everyone contributing
# it dies in it and its intercept is infinite, so the models keep four intervals; open_interval has the fifth's counts.
rows <- do.call(rbind, lapply(1:5, function(j) {
  a <- c(0, cuts)[j]; b <- c(cuts, Inf)[j]
  dies <- lung$event == 1 & lung$time > a & lung$time <= b
  keep <- lung$time > a & (dies | lung$time >= b & (lung$event == 0 | lung$time > b))
  data.frame(interval = j, dies = as.numeric(dies), age = lung$age, sex = lung$sex)[keep, ]
}))
discrete <- function(link) {
  d <- rows[rows$interval < 5, ]; fam <- binomial(link)
  fit <- still(dies ~ 0 + factor(interval) + age + sex, family = fam, data = d)
  base <- still(dies ~ 0 + factor(interval), family = fam, data = d); flat <- still(dies ~ 1, family = fam, data = d)
  mu <- fitted(fit)
  list(terms = c(paste0("interval", 1:4), "age", "sex"), coef = unname(coef(fit)), se = se(vcov(fit)), loglik = c(logLik(fit)),
       loglik_baseline = c(logLik(base)), loglik_null = c(logLik(flat)), deviance = deviance(fit), n = nrow(lung), rows = nrow(d),
       at_risk = as.numeric(table(d$interval)), events = unname(tapply(d$dies, d$interval, sum)),
       gradient = max(abs(crossprod(model.matrix(fit), (d$dies - mu) * fam$mu.eta(fit$linear.predictors) / fam$variance(mu)))))
}

# --- Firth: the log-likelihood + log det(information) / 2. se from the inverse information at the maximum.
# null: the penalty of the intercept-only design. profile_null: slopes held at 0 under the full design's penalty (as logistf).
firth <- function(x, y, free = seq_len(ncol(x))) {
  b <- numeric(ncol(x))
  for (i in 1:5000) {
    p <- plogis(drop(x %*% b)); q <- qr(sqrt(p * (1 - p)) * x); h <- rowSums(qr.Q(q)^2)
    u <- crossprod(x, y - p + h * (0.5 - p)); step <- numeric(ncol(x))
    step[free] <- solve(crossprod(x[, free, drop = FALSE], p * (1 - p) * x[, free, drop = FALSE]), u[free])
    b <- b + step * min(1, 2 / max(abs(step)))
    if (max(abs(step)) < 1e-15) break
  }
  pen <- function(b) { e <- drop(x %*% b); sum(y * e - log1p(exp(e))) + determinant(crossprod(x, dlogis(e) * x))$modulus[1] / 2 }
  near(numDeriv::grad(pen, b)[free], 0, 1e-5)
  list(terms = colnames(x), coef = b, se = se(chol2inv(qr.R(q))), penalised_loglik = pen(b),
       loglik = sum(dbinom(y, 1, plogis(drop(x %*% b)), log = TRUE)), n = length(y), gradient = max(abs(u[free])))
}
firths <- function(x, y) {
  fit <- firth(x, y); null <- firth(x[, 1, drop = FALSE], y)
  s <- apply(x, 2, function(v) max(abs(v))); z <- optim(fit$coef * s, function(b) { e <- drop(x %*% (b / s)); -sum(y * e - log1p(exp(e))) - determinant(crossprod(x, dlogis(e) * x))$modulus[1] / 2 }, method = "BFGS")
  stopifnot(-z$value <= fit$penalised_loglik + 1e-9, abs(z$value + fit$penalised_loglik) < 1e-6)
  c(fit, list(penalised_loglik_null = null$penalised_loglik, coef_null = null$coef, profile_null = firth(x, y, 1)$penalised_loglik))
}
sep <- data.frame(y = rep(0:1, c(9, 11)),
                  x1 = c(0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0),
                  x2 = c(1.2, -0.4, 0.3, 2.1, -1.5, 0.8, 0.1, -0.9, 1.7, 0.6, 1.9, -0.2, 2.4, 1.1, -1.3, 0.9, 2.8, 1.4, 3.1, -0.6))

# --- robust covariances, whole matrices.
hc <- function(fit, score, bread) {
  h <- hatvalues(fit); x <- model.matrix(fit); n <- nrow(x)
  v <- sapply(paste0("HC", 0:3), function(t) unname(sandwich::vcovHC(fit, type = t)), simplify = FALSE)
  for (t in 0:3) near(bread %*% crossprod(score * switch(t + 1, 1, sqrt(n / (n - ncol(x))), 1 / sqrt(1 - h), 1 / (1 - h))) %*% bread, v[[t + 1]], 1e-10)
  c(list(terms = names(coef(fit)), coef = unname(coef(fit)), se = se(vcov(fit)), n = n), v)
}
m <- lm(albumin ~ age + log(bili), pbc)
lo <- still(died ~ age + albumin, family = binomial(), data = pbc)
pk <- read.csv(file.path(args[1], "parkinsons-telemonitoring/parkinsons_updrs.csv"), check.names = FALSE)[, c(1:6, 19)]
names(pk)[1] <- "subject"
pk <- pk[order(pk$subject, pk$test_time), ]
cl <- lm(motor_UPDRS ~ test_time + age + sex, pk)
vc <- sandwich::vcovCL(cl, cluster = pk$subject, type = "HC0", cadjust = FALSE)
near({ b <- solve(crossprod(model.matrix(cl))); b %*% crossprod(rowsum(model.matrix(cl) * resid(cl), pk$subject)) %*% b }, vc, 1e-10)
robust <- list(
  lm = hc(m, model.matrix(m) * resid(m), solve(crossprod(model.matrix(m)))),
  glm = hc(lo, model.matrix(lo) * (lo$y - fitted(lo)), vcov(lo)),
  cluster = list(terms = names(coef(cl)), coef = unname(coef(cl)), se = se(vcov(cl)), cluster_se = se(vc), covariance = unname(vc),
                 n = nrow(pk), clusters = length(unique(pk$subject)))
)

# --- generalised estimating equations, rows sorted by subject and time. Solved here to the end, checked against geepack:
# phi = mean squared Pearson residual; alpha = mean product over all pairs within subjects / phi; no degrees of freedom.
# motor_UPDRS > 20 has no exchangeable answer (few patients ever cross 20; both routes run off to infinity), so that
# outcome is fitted with independence, and total_UPDRS > 35 and HNR > 22 with exchangeable.
pk$motor20 <- as.numeric(pk$motor_UPDRS > 20); pk$total35 <- as.numeric(pk$total_UPDRS > 35); pk$hnr22 <- as.numeric(pk$HNR > 22)
gee <- function(f, fam, corstr) {
  loose <- geeglm(f, family = fam, data = pk, id = subject, corstr = corstr, control = geese.control(epsilon = 1e-12, maxit = 500))
  x <- model.matrix(f, pk); y <- model.response(model.frame(f, pk)); b <- coef(glm(f, fam, pk)); n <- c(table(pk$subject)); id <- pk$subject
  for (i in 1:500) {
    eta <- drop(x %*% b); mu <- fam$linkinv(eta); s <- sqrt(fam$variance(mu)); e <- (y - mu) / s; d <- fam$mu.eta(eta) / s * x
    phi <- mean(e^2); a <- if (corstr == "independence") 0 else sum(rowsum(e, id)^2 - rowsum(e^2, id)) / sum(n * (n - 1)) / phi
    # Inverse of (1-a) I + a J in each subject, applied to the columns of z.
    inv <- function(z) (z - (a / (1 + (n - 1) * a) * rowsum(z, id))[as.character(id), , drop = FALSE]) / (1 - a)
    w <- inv(d); info <- crossprod(d, w); step <- solve(info, crossprod(w, e)); b <- b + drop(step)
    if (max(abs(step) / (1e-8 + abs(b))) < 1e-13) break
  }
  u <- rowsum(w * e, id); v <- solve(info) %*% crossprod(u) %*% solve(info)
  near(b, coef(loose), 1e-8); near(se(v), se(loose$geese$vbeta), 1e-7); near(se(solve(info) * phi), se(loose$geese$vbeta.naiv), 1e-7); near(phi, loose$geese$gamma)
  if (a != 0) near(a, loose$geese$alpha)
  list(terms = colnames(x), coef = unname(b), se = se(v), naive_se = se(solve(info) * phi), alpha = a, phi = phi, covariance = unname(v),
       n = nrow(x), clusters = length(n), gradient = max(abs(colSums(u))))
}

# --- elastic net. On columns standardised with 1/n: mean loss + l1 |b|_1 + l2 |b|^2 / 2, coefficients given on the original scale.
# Loss: squares / 2, or minus the log-likelihood. l1 = lambda alpha; l2 = lambda (1 - alpha), except that glmnet's gaussian
# divides l2 by the 1/n standard deviation of the outcome: "gaussian" is glmnet's answer, "gaussian_plain" has l2 undivided.
enet <- function(x, y, fam, l1, l2) {
  n <- nrow(x); m <- colMeans(x); s <- sqrt(colMeans(sweep(x, 2, m)^2)); z <- cbind(1, sweep(sweep(x, 2, m), 2, s, "/")); p <- ncol(z)
  link <- if (fam == "gaussian") list(identity, function(m) rep(1, n)) else list(plogis, function(m) m * (1 - m))
  lam1 <- c(0, rep(l1, p - 1)); lam2 <- c(0, rep(l2, p - 1)); b <- numeric(p)
  grad <- function(b) drop(crossprod(z, y - link[[1]](drop(z %*% b)))) / n - lam2 * b
  soft <- function(v, l) sign(v) * max(abs(v) - l, 0)
  for (i in 1:200) { # quadratic approximations, each by coordinate descent
    old <- b; g <- grad(b); h <- crossprod(z, link[[2]](link[[1]](drop(z %*% b))) * z) / n + diag(lam2)
    for (k in 1:20000) { was <- b
      for (j in 1:p) b[j] <- soft(h[j, j] * b[j] + g[j] - sum(h[j, ] * (b - old)), lam1[j]) / h[j, j]
      if (max(abs(b - was)) < 1e-15 * (1 + max(abs(b)))) break }
    if (max(abs(b - old)) < 1e-13 * (1 + max(abs(b)))) break
  }
  a <- c(TRUE, b[-1] != 0); sg <- sign(b) * lam1
  for (i in 1:5) { h <- crossprod(z, link[[2]](link[[1]](drop(z %*% b))) * z) / n + diag(lam2); b[a] <- b[a] + solve(h[a, a, drop = FALSE], (grad(b) - sg)[a]) }
  g <- grad(b)
  kkt <- max(ifelse(b == 0 & lam1 > 0, pmax(abs(g) - lam1, 0), abs(g - sign(b) * lam1)))
  c(b[1] - sum(b[-1] * m / s), b[-1] / s, kkt)
}
net <- function(x, y, fam, alpha, lambda, plain = FALSE) {
  x <- as.matrix(x); fold <- (seq_along(y) - 1) %% 5 + 1; p <- ncol(x)
  path <- function(x, y) sapply(lambda, function(l) {
    div <- if (fam == "gaussian" && !plain) sqrt(mean((y - mean(y))^2)) else 1
    enet(x, y, fam, l * alpha, l * (1 - alpha) / div) })
  full <- path(x, y)
  loss <- sapply(1:5, function(k) {
    b <- path(x[fold != k, ], y[fold != k]); eta <- cbind(1, x[fold == k, ]) %*% b[1:(p + 1), ]; o <- y[fold == k]
    if (fam == "gaussian") colMeans((o - eta)^2)
    else { q <- pmin(pmax(plogis(eta), 1e-5), 1 - 1e-5); colMeans(-2 * (o * log(q) + (1 - o) * log(1 - q))) } })
  w <- as.numeric(table(fold)); cvm <- drop(loss %*% w) / sum(w); cvsd <- sqrt(drop((loss - cvm)^2 %*% w) / sum(w) / 4)
  gap <- NULL
  if (!plain) {
    fit <- cv.glmnet(x, y, family = fam, alpha = alpha, lambda = lambda, foldid = fold, thresh = 1e-20, maxit = 1e7)
    near(fit$cvm, cvm, 1e-7); near(fit$cvsd, cvsd, 1e-7)
    gap <- max(abs(as.matrix(coef(fit$glmnet.fit)) - full[1:(p + 1), ]))
  }
  eta <- cbind(1, x) %*% full[1:(p + 1), ]
  list(alpha = alpha, lambda = lambda, coef = t(full[1:(p + 1), ]), cvm = cvm, cvsd = cvsd, kkt = max(full[p + 2, ]), glmnet_gap = gap,
       deviance = if (fam == "gaussian") colSums((y - eta)^2) else -2 * colSums(y * eta - log1p(exp(eta))))
}
gl <- na.omit(lung[, c("time", "age", "sex", "ph.ecog", "ph.karno", "pat.karno", "meal.cal", "wt.loss")])
bp <- na.omit(pbc[, c("died", "age", "albumin", "bili", "chol", "copper", "alk.phos", "ast", "trig", "platelet", "protime")])
nets <- function(d, fam, lambda, plain = FALSE) {
  list(terms = c("(Intercept)", names(d)[-1]), n = nrow(d),
       fits = lapply(c(1, 0.5, 0), function(a) net(d[, -1], d[, 1], fam, a, lambda, plain)))
}

# --- Rubin's rules, five fits of three coefficients, complete-data degrees of freedom 100.
est <- rbind(c(1.02, -0.35, 4.1), c(1.11, -0.31, 4.12), c(0.97, -0.52, 4.09), c(1.05, -0.12, 4.11), c(0.93, -0.44, 4.08))
va <- rbind(c(0.04, 0.011, 0.25), c(0.043, 0.0105, 0.26), c(0.038, 0.012, 0.24), c(0.041, 0.0098, 0.255), c(0.0395, 0.0117, 0.248))
pooled <- lapply(1:3, function(j) mice::pool.scalar(est[, j], va[, j], n = 101, k = 1))
pick <- function(k) sapply(pooled, function(p) p[[k]])
rubin <- list(estimate = est, variance = va, dfcom = 100, qbar = pick("qbar"), ubar = pick("ubar"), b = pick("b"), total = pick("t"),
              se = sqrt(pick("t")), r = pick("r"), fmi = pick("fmi"))
tt <- colMeans(va) + 1.2 * apply(est, 2, var); la <- 1.2 * apply(est, 2, var) / tt
obs <- 101 / 103 * 100 * (1 - la); old <- 4 / la^2
near(rubin$total, tt, 1e-14)
rubin <- c(rubin, list(lambda = la, df = old * obs / (old + obs)))
near(rubin$df, pick("df"), 1e-13)

out <- list(
  r = R.version.string,
  gamma_log = g(bili ~ age + sex + albumin, pbc, Gamma("log")),
  gamma_inverse = g(protime ~ age + albumin, pbc, Gamma()),
  probit = g(died ~ age + albumin + log(bili), pbc, binomial("probit")),
  cloglog = g(died ~ age + albumin + log(bili), pbc, binomial("cloglog")),
  negative_binomial = negative,
  ordinal = sapply(names(links), ordinal, simplify = FALSE),
  multinomial = multinomial(),
  parametric = sapply(c("weibull", "exponential", "loglogistic", "lognormal"), parametric, simplify = FALSE),
  piecewise = piecewise,
  discrete = list(cuts = c(0, cuts), cloglog = discrete("cloglog"), logit = discrete("logit"),
                  open_interval = list(at_risk = sum(rows$interval == 5), events = sum(rows$dies[rows$interval == 5]))),
  firth = list(separated = c(firths(model.matrix(~ x1 + x2, sep), sep$y), list(data = as.list(sep))),
               pbc = firths(model.matrix(~ age + albumin + sex, pbc), pbc$died)),
  robust = robust,
  gee = list(independence = gee(motor_UPDRS ~ test_time + age + sex, gaussian(), "independence"),
             exchangeable = gee(motor_UPDRS ~ test_time + age + sex, gaussian(), "exchangeable"),
             binomial_independence = gee(motor20 ~ test_time + age, binomial(), "independence"),
             binomial = gee(total35 ~ test_time + age, binomial(), "exchangeable"),
             binomial_voice = gee(hnr22 ~ test_time + age + sex, binomial(), "exchangeable")),
  elastic_net = list(folds = 5, fold_rule = "row index among the complete cases, from 0, modulo 5, plus 1",
                     gaussian = nets(gl, "gaussian", c(30, 15, 5, 1, 0.1)), gaussian_plain = nets(gl, "gaussian", c(30, 15, 5, 1, 0.1), TRUE),
                     binomial = nets(bp, "binomial", c(0.2, 0.1, 0.05, 0.01, 0.001))),
  rubin = rubin
)
write(toJSON(out, digits = 17, auto_unbox = TRUE, pretty = TRUE, null = "null"), args[2])
