# Reference numbers for mixed models (lmer, MMRM, glmer). Run: Rscript mixed.R SHARED_DATA OUT.json
# Linear models start at lme4/nlme's fit and are polished by Newton on the exact (restricted) likelihood, with analytic
# gradient and observed information in the covariance elements (V is linear in them); the polished numbers are given, and
# `check` says how far lme4, lmerTest or nlme were. Log-likelihoods are as lme4 and nlme give them (REML without log|X'X|).
# Satterthwaite: df = 2 (l'Cl)^2 / (g'Ag), A the inverse observed REML information, g the gradient of l'Cl.
# (gls with ML inflates its coefficients' covariance by n / (n - p); that is not done here.)
# glmer models: polished on their own Laplace / adaptive Gauss-Hermite likelihood (complex-step gradient); se as summary(glmer)
# has it, from the Hessian in (theta, beta); se_rx is vcov(use.hessian = FALSE), as lme4 left it.
# Data: parkinsons years = test_time / 365.25, sex 0/1 numeric. pbcseq years = day / 365.25, sex a factor with f first.
# mmrm visits: within an id, rows ordered by day, visit = 1, 2, ...; visits 1 to 4 kept; ids with fewer than 4 stay with what they have.
suppressMessages({library(jsonlite); library(lme4); library(nlme); library(numDeriv)})
args <- commandArgs(trailingOnly = TRUE)
park <- read.csv(file.path(args[1], "parkinsons-telemonitoring/parkinsons_updrs.csv"), check.names = FALSE)
names(park)[1] <- "subject"
park$years <- park$test_time / 365.25
seq0 <- read.csv(file.path(args[1], "survival-reference/pbcseq.csv"), stringsAsFactors = TRUE)
seq0 <- seq0[order(seq0$id, seq0$day), ]
seq0$years <- seq0$day / 365.25
seq0$visit <- ave(seq0$day, seq0$id, FUN = seq_along)

# exact likelihood: blocks of list(X, y, K), V = sum_k par[k] K[[k]]; value, gradient and Hessian of the log-likelihood, profiled over beta
lik <- function(par, B, reml) {
  m <- length(par); p <- ncol(B[[1]]$X)
  XX <- matrix(0, p, p); Xy <- numeric(p); ld <- 0; n <- 0
  for (i in seq_along(B)) {
    b <- B[[i]]; R <- chol(Reduce(`+`, Map(`*`, par, b$K))); b$W <- chol2inv(R); B[[i]] <- b
    WX <- b$W %*% b$X; XX <- XX + crossprod(b$X, WX); Xy <- Xy + crossprod(WX, b$y)
    ld <- ld + 2 * sum(log(diag(R))); n <- n + length(b$y)
  }
  C <- chol2inv(chol(XX)); beta <- drop(C %*% Xy)
  q <- 0; tr <- qk <- numeric(m); TT <- QQ <- TX <- matrix(0, m, m); Xk <- rep(list(matrix(0, p, p)), m); Rk <- matrix(0, p, m)
  for (b in B) {
    r <- drop(b$y - b$X %*% beta); Wr <- drop(b$W %*% r); WX <- b$W %*% b$X; q <- q + sum(r * Wr)
    S <- lapply(b$K, function(k) b$W %*% k); kr <- sapply(b$K, function(k) k %*% Wr); kr <- matrix(kr, ncol = m); KX <- lapply(b$K, function(k) k %*% WX)
    tr <- tr + sapply(S, function(s) sum(diag(s))); qk <- qk + drop(crossprod(kr, Wr)); QQ <- QQ + crossprod(kr, b$W %*% kr)
    Rk <- Rk + crossprod(WX, kr)
    for (j in 1:m) {
      Xk[[j]] <- Xk[[j]] + crossprod(WX, KX[[j]]); WKX <- b$W %*% KX[[j]]
      for (k in 1:m) { TT[j, k] <- TT[j, k] + sum(S[[j]] * t(S[[k]])); TX[j, k] <- TX[j, k] + sum(C * crossprod(KX[[k]], WKX)) }
    }
  }
  QQ <- QQ - t(Rk) %*% C %*% Rk
  l <- -0.5 * (n * log(2 * pi) + ld + q)
  if (reml) {
    l <- l + 0.5 * p * log(2 * pi) - 0.5 * as.numeric(determinant(XX)$modulus)
    CX <- lapply(Xk, function(x) C %*% x); tr <- tr - sapply(CX, function(x) sum(diag(x)))
    for (j in 1:m) for (k in 1:m) TT[j, k] <- TT[j, k] - 2 * TX[j, k] + sum(CX[[j]] * t(CX[[k]]))
  }
  H <- 0.5 * TT - QQ
  list(l = l, grad = -0.5 * (tr - qk), hess = (H + t(H)) / 2, beta = beta, C = C, dC = lapply(Xk, function(x) C %*% x %*% C), n = n, p = p)
}
polish <- function(par, B, reml) {
  y <- unlist(lapply(B, `[[`, "y")); s <- sd(y)
  Bs <- lapply(B, function(b) { b$y <- b$y / s; b }); par <- par / s^2
  for (it in 1:60) {
    f <- lik(par, Bs, reml); step <- solve(-f$hess, f$grad, tol = 1e-40); d <- 1
    while (d > 1e-6 && is.null(tryCatch(if (lik(par + d * step, Bs, reml)$l > f$l - 1e-8) 1, error = function(e) NULL))) d <- d / 2
    par <- par + d * step
    if (max(abs(step)) < 1e-14 * max(abs(par)) || (it > 6 && sum(step * f$grad) < 1e-24)) break
  }
  f <- lik(par, Bs, reml); stopifnot(all(eigen(-f$hess)$values > 0))
  f$decrement <- sum(f$grad * solve(-f$hess, f$grad, tol = 1e-40)); f$sgrad <- f$grad; f$spar <- par; f$iterations <- it
  f$A <- solve(-f$hess, tol = 1e-40) * s^4; f$par <- par * s^2; f$grad <- f$grad / s^2; f$beta <- f$beta * s; f$C <- f$C * s^2
  f$l <- f$l - (f$n - if (reml) f$p else 0) * log(s); f
}
satt <- function(f, k) { g <- sapply(f$dC, function(d) d[k, k]); 2 * f$C[k, k]^2 / drop(g %*% f$A %*% g) }
fixed <- function(f, terms, reml) {
  se <- sqrt(diag(f$C)); o <- list(terms = terms, coef = unname(f$beta), cov = unname(f$C), se = unname(se))
  o <- lapply(o, I)
  if (reml) { df <- sapply(seq_along(se), satt, f = f); t <- unname(f$beta / se); o <- c(o, lapply(list(df = df, t = t, p = 2 * pt(-abs(t), df)), I)) }
  o
}
blocks <- function(X, y, id, Kfun) lapply(split(seq_along(y), id), function(i) list(X = X[i, , drop = FALSE], y = y[i], K = Kfun(i)))
lmer <- function(...) do.call(lme4::lmer, list(...))  # values rather than names in the call, so that lmerTest can redo it
tight <- function(formula, data, reml) {
  f <- lmer(formula, data, REML = reml, control = lmerControl("bobyqa", optCtrl = list(maxfun = 1e5, rhobeg = 0.02, rhoend = 1e-12), check.conv.singular = "ignore", calc.derivs = FALSE))
  f <- lmer(formula, data, REML = reml, start = unname(getME(f, "theta")), control = lmerControl("Nelder_Mead", optCtrl = list(maxfun = 1e5, FtolAbs = 1e-14, FtolRel = 1e-15, XtolRel = 1e-12, MinfMax = -Inf), check.conv.singular = "ignore", calc.derivs = FALSE))
  f
}
# par: intercept (G11, s2); correlated (G11, G12, G22, s2); uncorrelated (G11, G22, s2)
mixed <- function(formula, data, id, kind, reml, brief = FALSE) {
  data <- data[!is.na(data[[id]]), ]; fit <- tight(formula, data, reml)
  default <- lmer(formula, data, REML = reml, control = lmerControl(check.conv.singular = "ignore", check.conv.grad = "ignore", check.conv.hess = "ignore"))
  X <- getME(fit, "X"); y <- unname(getME(fit, "y")); yr <- if (kind == "intercept") NULL else data$years
  B <- blocks(X, y, data[[id]], function(i) {
    J <- matrix(1, length(i), length(i)); E <- diag(length(i)); t <- yr[i]
    switch(kind, intercept = list(J, E), correlated = list(J, outer(t, t, `+`), outer(t, t), E), uncorrelated = list(J, outer(t, t), E))
  })
  vc <- as.data.frame(VarCorr(fit)); th <- unname(getME(fit, "theta")); s2 <- sigma(fit)^2
  par <- s2 * switch(kind, intercept = c(th^2, 1), correlated = c(th[1]^2, th[1] * th[2], th[2]^2 + th[3]^2, 1), uncorrelated = c(th^2, 1))
  f <- polish(par, B, reml); v <- f$par; s <- sqrt(v[length(v)])
  if (kind == "correlated") {
    sd <- sqrt(v[c(1, 3)]); cor <- v[2] / prod(sd); theta <- c(sd[1], cor * sd[2], sd[2] * sqrt(1 - cor^2)) / s
    J <- v[4] * rbind(c(2 * theta[1], 0, 0), c(theta[2], theta[1], 0), c(0, 2 * theta[2:3]))
    sdn <- c("(Intercept)", "years")
  } else {
    sd <- sqrt(v[-length(v)]); cor <- NULL; theta <- sd / s; J <- diag(2 * theta * v[length(v)], length(theta)); sdn <- c("(Intercept)", "years")[seq_along(sd)]
  }
  k <- length(v) - 1; gt <- -2 * drop(f$grad[1:k] %*% J)
  o <- fixed(f, colnames(X), reml)
  o <- c(o, list(sd = as.list(setNames(sd, sdn))), if (!is.null(cor)) list(cor = cor), list(
    residual_sd = s, theta = I(theta), varpar = I(v), varpar_cov = f$A, loglik = f$l, deviance = -2 * f$l, n = f$n, groups = length(B), reml = reml))
  dev <- lmer(formula, data, REML = reml, devFunOnly = TRUE)
  chk <- list(max_gradient_theta = max(abs(gt)), newton_decrement = f$decrement, gradient_numeric = max(abs(grad(dev, theta))),
    tight_theta = max(abs(th - theta) / abs(theta)), tight_loglik = as.numeric(logLik(fit)) - f$l, tight_coef = max(abs(fixef(fit) - f$beta)),
    default_theta = max(abs(getME(default, "theta") - theta) / abs(theta)), default_loglik = as.numeric(logLik(default)) - f$l,
    default_se = max(abs(sqrt(diag(as.matrix(vcov(default)))) / sqrt(diag(f$C)) - 1)))
  if (reml && !brief) {
    lt <- function(m) unname(lmerTest:::summary.lmerModLmerTest(lmerTest::as_lmerModLmerTest(m))$coefficients[, "df"])
    df <- unclass(o$df); chk$lmertest_df <- max(abs(lt(fit) / df - 1)); chk$lmertest_default_df <- max(abs(lt(default) / df - 1))
    vp <- c(theta, s); rd <- list(r = 6); h <- hessian(lmerTest:::devfun_vp, vp, devfun = dev, reml = TRUE, method.args = rd)
    jac <- jacobian(function(x) diag(lmerTest:::get_covbeta(x, dev)), vp, method.args = rd); A <- 2 * solve(h)
    chk$numeric_df <- max(abs(2 * diag(f$C)^2 / rowSums((jac %*% A) * jac) / df - 1))
  }
  c(o, list(check = chk))
}
both <- function(...) list(reml = mixed(..., reml = TRUE), ml = mixed(..., reml = FALSE))

voices <- c("Jitter(%)", "Jitter(Abs)", "Shimmer", "NHR", "HNR", "RPDE", "DFA", "PPE")
icc <- lapply(setNames(voices, voices), function(x) {
  d <- data.frame(x = park[[x]], subject = park$subject); s <- sd(d$x); d$x <- d$x / s  # scaled for lmer's sake, scaled back below
  m <- mixed(x ~ 1 + (1 | subject), d, "subject", "intercept", TRUE, TRUE); v <- unclass(m$varpar)
  list(mean = s * c(m$coef), se = s * c(m$se), df = c(m$df), between_var = s^2 * v[1], within_var = s^2 * v[2], icc = v[1] / sum(v), theta = c(m$theta),
       loglik = m$loglik - (m$n - 1) * log(s), n = m$n, groups = m$groups, check = m$check)
})

four <- subset(seq0, visit <= 4); four$v <- factor(four$visit)
mmrm <- function(reml) {
  fit <- gls(log(bili) ~ v * sex + age, four, correlation = corSymm(form = ~ visit | id), weights = varIdent(form = ~ 1 | visit), method = if (reml) "REML" else "ML")
  X <- model.matrix(~ v * sex + age, four); y <- log(four$bili); ix <- which(lower.tri(diag(4), TRUE), arr.ind = TRUE)
  B <- blocks(X, y, four$id, function(i) lapply(1:10, function(k) { E <- matrix(0, 4, 4); E[ix[k, 1], ix[k, 2]] <- E[ix[k, 2], ix[k, 1]] <- 1; E[four$visit[i], four$visit[i], drop = FALSE] }))
  full <- names(which(table(four$id) == 4))[1]; S0 <- unclass(getVarCov(fit, individual = full))
  f <- polish(S0[ix], B, reml); S <- matrix(0, 4, 4); S[ix] <- f$par; S[ix[, 2:1]] <- f$par
  sds <- sqrt(diag(S)); L <- t(chol(S))
  lc <- function(x) { L <- matrix(0, 4, 4); L[ix] <- x; diag(L) <- exp(diag(L)); -2 * lik((L %*% t(L))[ix], B, reml)$l }
  x <- L[ix]; x[ix[, 1] == ix[, 2]] <- log(diag(L)); D <- jacobian(function(x) { L <- matrix(0, 4, 4); L[ix] <- x; diag(L) <- exp(diag(L)); (L %*% t(L))[ix] }, x)
  c(fixed(f, colnames(X), reml), list(sigma = S, sd = sds, corr = S / outer(sds, sds), varpar_cov = f$A, loglik = f$l, n = f$n, groups = length(B), reml = reml,
    check = list(max_gradient_log_cholesky = max(abs(-2 * drop(f$grad %*% D))), gradient_numeric = max(abs(grad(lc, x))), newton_decrement = f$decrement,
      gls_sigma = max(abs(S0 - S)), gls_loglik = as.numeric(logLik(fit)) - f$l, gls_coef = max(abs(coef(fit) - f$beta)), gls_se = max(abs(sqrt(diag(fit$varBeta) * if (reml) 1 else (f$n - f$p) / f$n) / sqrt(diag(f$C)) - 1)))))
}

# one random intercept: log-likelihood by adaptive Gauss-Hermite (k = 1 is Laplace), for real or complex par = (theta, beta)
hermite <- function(k) { if (k == 1) return(list(z = 0, w = sqrt(pi))); b <- sqrt(1:(k - 1) / 2); T <- matrix(0, k, k); T[cbind(1:(k - 1), 2:k)] <- b; T[cbind(2:k, 1:(k - 1))] <- b; e <- eigen(T, TRUE); list(z = e$values, w = sqrt(pi) * e$vectors[1, ]^2) }
agq <- function(par, X, y, id, family, k) {
  th <- par[1]; eta0 <- drop(X %*% par[-1]); sm <- function(a) { a <- as.complex(a); drop(rowsum(Re(a), id)) + 1i * drop(rowsum(Im(a), id)) }
  at <- match(id, sort(unique(id))); u <- complex(length(unique(id)))
  mu <- function(e) if (family == "binomial") 1 / (1 + exp(-e)) else exp(e); w <- function(m) if (family == "binomial") m * (1 - m) else m
  f <- function(u) { e <- eta0 + th * u[at]; sm(if (family == "binomial") y * e - log(1 + exp(e)) else y * e - exp(e) - lgamma(y + 1)) - u^2 / 2 }
  for (it in 1:300) {
    m <- mu(eta0 + th * u[at]); s <- (th * sm(y - m) - u) / (1 + th^2 * sm(w(m))); big <- Mod(s) > 0.5; s[big] <- s[big] / Mod(s[big]) / 2; u <- u + s
    if (it > 30 && max(abs(Re(s))) < 1e-13) break
  }
  h <- 1 + th^2 * sm(w(mu(eta0 + th * u[at]))); g <- hermite(k); fm <- f(u)
  I <- 0; for (j in 1:k) I <- I + g$w[j] * exp(g$z[j]^2) * exp(f(u + sqrt(2) * g$z[j] / sqrt(h)) - fm)
  sum(fm - log(h) / 2 + log(I / sqrt(pi)))
}
glmm <- function(formula, data, id, family, k) {
  fit <- suppressWarnings(glmer(formula, data, family = family, nAGQ = k, control = glmerControl("bobyqa", optCtrl = list(maxfun = 1e5, rhobeg = 1e-3, rhoend = 1e-11), tolPwrss = 1e-12)))
  default <- suppressWarnings(glmer(formula, data, family = family, nAGQ = k))
  X <- getME(fit, "X"); y <- unname(getME(fit, "y")); id <- data[[id]]
  gr <- function(x) sapply(seq_along(x), function(j) { z <- as.complex(x); z[j] <- z[j] + 1e-30i; Im(agq(z, X, y, id, family, k)) / 1e-30 })
  x <- x0 <- unname(c(getME(fit, "theta"), fixef(fit)))
  for (it in 1:8) { H <- jacobian(gr, x); g <- gr(x); step <- solve(-H, g); x <- x + step; if (max(abs(step)) < 1e-12) break }
  H <- jacobian(gr, x); V <- solve(-(H + t(H)) / 2); l <- Re(agq(as.complex(x), X, y, id, family, k)); b <- x[-1]; se <- sqrt(diag(V))[-1]
  own <- function(m) sqrt(diag(as.matrix(vcov(m))))
  list(terms = colnames(X), coef = b, cov = V[-1, -1], se = se, z = b / se, p = 2 * pnorm(-abs(b / se)), theta = I(x[1]), sd = list("(Intercept)" = x[1]), theta_se = sqrt(V[1, 1]),
    se_rx = unname(sqrt(diag(as.matrix(suppressWarnings(vcov(fit, use.hessian = FALSE)))))), loglik = l, n = length(y), groups = length(unique(id)), nagq = k,
    check = list(max_gradient = max(abs(gr(x))), tight_par = max(abs(x0 / x - 1)), tight_loglik = as.numeric(logLik(fit)) - l, tight_se = max(abs(own(fit) / se - 1)),
      default_par = max(abs(c(getME(default, "theta"), fixef(default)) / x - 1)), default_loglik = as.numeric(logLik(default)) - l, default_se = max(abs(own(default) / se - 1))))
}
seq0$high <- as.integer(seq0$bili > 2)
seq0$signs <- seq0$ascites + seq0$hepato + seq0$spiders; signs <- subset(seq0, !is.na(signs))
set.seed(20)
cnt <- data.frame(id = rep(1:50, each = 5), x = round(rnorm(250), 3), arm = rep(rep(0:1, 25), each = 5))
cnt$y <- rpois(250, exp(0.6 + 0.3 * cnt$x - 0.4 * cnt$arm + rep(rnorm(50, 0, 0.7), each = 5)))

# singular: the patients' means are pulled together, so the REML derivative in the intercept variance is negative at 0 and the fit is least squares
set.seed(21)
deg <- data.frame(id = rep(1:12, each = 4), visit = rep(0:3, 12), arm = rep(rep(0:1, 6), each = 4)); e <- rnorm(48)
deg$y <- round(10 + 0.5 * deg$visit - deg$arm + e - 0.9 * ave(e, deg$id), 2)
dfit <- tight(y ~ visit + arm + (1 | id), deg, TRUE); dl <- lm(y ~ visit + arm, deg); stopifnot(getME(dfit, "theta") < 1e-6)
s0 <- summary(dl)$coefficients; X <- model.matrix(dl); B <- blocks(X, deg$y, deg$id, function(i) list(matrix(1, 4, 4), diag(4))); d0 <- lik(c(0, sigma(dl)^2), B, TRUE)
degenerate <- list(data = as.list(deg), terms = rownames(s0), coef = unname(s0[, 1]), cov = unname(vcov(dl)), se = unname(s0[, 2]), df = rep(dl$df.residual, 3), t = unname(s0[, 3]), p = unname(s0[, 4]),
  sd = list("(Intercept)" = 0), residual_sd = sigma(dl), theta = I(0), loglik = d0$l, n = 48, groups = 12, reml = TRUE,
  check = list(score_at_zero = d0$grad[1], lmer_theta = unname(getME(dfit, "theta")), lmer_loglik = as.numeric(logLik(dfit)) - d0$l, lmer_se = max(abs(sqrt(diag(as.matrix(vcov(dfit)))) / s0[, 2] - 1)),
    lmertest_df = unname(summary(lmerTest::as_lmerModLmerTest(dfit))$coefficients[, "df"])))

out <- list(
  version = R.version.string, packages = lapply(setNames(nm = c("lme4", "lmerTest", "nlme", "numDeriv")), function(p) as.character(packageVersion(p))),
  intercept = both(motor_UPDRS ~ years + age + sex + (1 | subject), park, "subject", "intercept"),
  slope = both(motor_UPDRS ~ years + age + sex + (years | subject), park, "subject", "correlated"),
  pbc = both(log(bili) ~ years * sex + age + (years | id), seq0, "id", "correlated"),
  pbc_uncorrelated = list(reml = mixed(log(bili) ~ years * sex + age + (years || id), seq0, "id", "uncorrelated", TRUE)),
  icc = icc,
  mmrm = list(reml = mmrm(TRUE), ml = mmrm(FALSE)),
  glmm = list(binomial = glmm(high ~ years + sex + (1 | id), seq0, "id", "binomial", 1), binomial_agq9 = glmm(high ~ years + sex + (1 | id), seq0, "id", "binomial", 9),
    poisson_signs = glmm(signs ~ years + sex + (1 | id), signs, "id", "poisson", 1),
    poisson = c(list(data = as.list(cnt)), glmm(y ~ x + arm + (1 | id), cnt, "id", "poisson", 1))),
  degenerate = degenerate
)
write_json(out, args[2], digits = I(17), auto_unbox = TRUE, pretty = TRUE)
