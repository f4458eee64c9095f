# Reference numbers for competing risks, Cox diagnostics, baseline and recurrent events. Run: Rscript competing.R SHARED_DATA OUT.json
suppressMessages({library(survival); library(cmprsk); library(glmnet); library(jsonlite)})
args <- commandArgs(trailingOnly = TRUE)
data <- args[1]
grid <- function(t, w) if (w == 0) t else ceiling(round(t / w, 9)) * w
widths <- c(gridded = 30, exact = 0)
both <- function(f) lapply(widths, function(w) { p <- pbc; p$t <- grid(p$time, w); f(p) })
at <- c(365, 730, 1095, 1825, 2555, 3650)
ctl <- coxph.control(eps = 1e-13, iter.max = 100, toler.chol = 1e-14)
pbc <- read.csv(file.path(data, "survival-reference/pbc.csv"))
pbc$log_bili <- log(pbc$bili)
pbc$cause <- factor(pbc$status, 0:2, c("censor", "transplant", "death"))
bladder <- read.csv(file.path(data, "bladder-recurrence/bladder.csv"))
b2 <- read.csv(file.path(data, "bladder-recurrence/bladder2.csv"))
cox <- function(fit) {
  robust <- !is.null(fit$naive.var)
  naive <- if (robust) fit$naive.var else fit$var
  c(list(terms = names(coef(fit)), coef = unname(coef(fit)), se = unname(sqrt(diag(naive))), var = unname(naive)),
    if (robust) list(robust_se = unname(sqrt(diag(fit$var))), robust_var = unname(fit$var)),
    list(loglik_null = fit$loglik[1], loglik = fit$loglik[2], n = fit$n, events = fit$nevent, iter = fit$iter))
}
ties <- function(f) sapply(c("efron", "breslow"), f, simplify = FALSE)
out <- list(about = list(version = paste(R.version.string, "survival", packageVersion("survival"), "cmprsk", packageVersion("cmprsk"),
                                         "glmnet", packageVersion("glmnet")),
                         gridded = "pbc times moved to ceiling(time / 30) * 30 before every fit", exact = "pbc times as given",
                         causes = "1 transplant, 2 death, 0 censored", times = at))

# cumhaz = sum d/n; std_err = sqrt(sum d/n^2) is survfit's std.chaz; se_log_surv is survfit's std.err (Greenwood, for log S)
out$nelson_aalen <- both(function(p) {
  fit <- survfit(Surv(t, status == 2) ~ sex, p, ctype = 1)
  group <- rep(sub("sex=", "", names(fit$strata)), fit$strata)
  lapply(split(seq_along(fit$time), group), function(i)
    list(time = fit$time[i], n_risk = fit$n.risk[i], n_event = fit$n.event[i], cumhaz = fit$cumhaz[i],
         std_err = fit$std.chaz[i], surv = fit$surv[i], se_log_surv = fit$std.err[i]))
})

gray <- function(fit) { t <- fit$Tests; list(cause = as.integer(rownames(t)), stat = unname(t[, "stat"]), pv = unname(t[, "pv"]), df = unname(t[, "df"])) }
curves <- function(fit) {
  tp <- timepoints(fit[names(fit) != "Tests"], at)
  cause <- sub(".* ", "", rownames(tp$est)); group <- sub(" .*", "", rownames(tp$est))
  lapply(split(seq_along(cause), group), function(i) lapply(split(i, cause[i]), function(k)
    list(est = unname(tp$est[k, ]), var = unname(tp$var[k, ]))))
}
aj <- function(fit) {
  s <- summary(fit, times = at, extend = TRUE)
  group <- if (is.null(s$strata)) rep("1", length(s$time)) else sub("sex=", "", as.character(s$strata))
  lapply(split(seq_along(group), group), function(i) {
    one <- lapply(2:3, function(k) list(pstate = s$pstate[i, k], std_err = s$std.err[i, k]))
    c(list(time = s$time[i], event_free = s$pstate[i, 1], event_free_se = s$std.err[i, 1]), setNames(one, c("1", "2")))
  })
}
out$cuminc <- both(function(p) {
  by <- cuminc(p$t, p$status, group = p$sex, cencode = 0)
  list(times = at, by_sex = curves(by), gray = gray(by),
       gray_strata_edema = gray(cuminc(p$t, p$status, group = p$sex, strata = p$edema, cencode = 0)),
       gray_edema = gray(cuminc(p$t, p$status, group = p$edema, cencode = 0)),
       all = curves(cuminc(p$t, p$status, cencode = 0))[["1"]],
       aalen_johansen = list(by_sex = aj(survfit(Surv(t, cause) ~ sex, p)), all = aj(survfit(Surv(t, cause) ~ 1, p))[["1"]]))
})

fg <- function(p) {
  x <- as.matrix(p[, c("age", "albumin", "log_bili")])
  fit <- crr(p$t, p$status, x, failcode = 2, cencode = 0, gtol = 1e-12, maxiter = 100)
  d <- finegray(Surv(t, cause) ~ age + albumin + log_bili + id, p, etype = "death")
  c(list(crr = list(terms = colnames(x), coef = unname(fit$coef), se = sqrt(diag(fit$var)), var = fit$var,
                    inverse_information = fit$invinf, se_naive = sqrt(diag(fit$invinf)), loglik = fit$loglik, loglik_null = fit$loglik.null,
                    converged = fit$converged, score_at_fit = fit$score, baseline_time = fit$uftime, baseline_jump = fit$bfitj)),
    list(finegray = c(list(rows = nrow(d), sum_weight = sum(d$fgwt)),
      ties(function(m) cox(coxph(Surv(fgstart, fgstop, fgstatus) ~ age + albumin + log_bili, d, weights = fgwt, cluster = id, robust = TRUE, ties = m, control = ctl))))))
}
out$fine_gray <- both(fg)

out$cause_specific <- both(function(p) lapply(c(transplant = 1, death = 2), function(k) ties(function(m)
  cox(coxph(Surv(t, status == k) ~ age + albumin + log(bili), p, ties = m, control = ctl)))))

model <- function(p, m = "efron") coxph(Surv(t, status == 2) ~ age + albumin + log(bili), p, ties = m, control = ctl, x = TRUE)
# Score test of adding x_j * g(t) to the fitted model: u' solve(I) u, u = (0, sum_events g (x_j - xbar_j)),
# I the (beta, theta) information at (beta_hat, 0), each event term V weighted by 1, g and g^2;
# g(t) is centred at its plain mean over the events (km: 1 - S(t-) of the pooled Kaplan-Meier).
out$zph <- both(function(p) ties(function(m) {
  fit <- model(p, m)
  sapply(c("identity", "log", "km", "rank"), function(tr) {
    z <- cox.zph(fit, transform = tr, terms = FALSE)
    list(terms = rownames(z$table), chisq = unname(z$table[, "chisq"]), df = unname(z$table[, "df"]), p = unname(z$table[, "p"]))
  }, simplify = FALSE)
}))

out$concordance <- both(function(p) {
  fit <- model(p); k <- concordance(fit)
  list(count = as.list(k$count), concordance = unname(k$concordance), var = unname(k$var), se = sqrt(unname(k$var)), cvar = unname(k$cvar), n = k$n,
       coef = unname(coef(fit)))
})

new <- data.frame(age = c(50, 62), albumin = c(3.5, 2.9), bili = c(1.4, 6.5))
# std_err is of the cumulative hazard (= of log S), as stored in survfit; se_surv = surv * std_err
out$basehaz <- both(function(p) ties(function(m) {
  fit <- model(p, m); s <- survfit(fit, newdata = new)
  b <- basehaz(fit, centered = FALSE)
  pick <- function(x) { i <- findInterval(at, s$time); lapply(1:2, function(r) unname(x[i, r])) }
  list(coef = unname(coef(fit)), newdata = new, times = at, surv = pick(s$surv), cumhaz = pick(s$cumhaz), std_err = pick(s$std.err),
       se_surv = pick(s$surv * s$std.err),
       baseline_at_zero = b$hazard[findInterval(at, b$time)])
}))

out$recurrent <- ties(function(m) list(
  ag = cox(coxph(Surv(start, stop, event) ~ rx + size + number + cluster(id), b2, ties = m, control = ctl)),
  pwp_total = cox(coxph(Surv(start, stop, event) ~ rx + size + number + strata(enum) + cluster(id), b2, ties = m, control = ctl)),
  pwp_gap = cox(coxph(Surv(stop - start, event) ~ rx + size + number + strata(enum) + cluster(id), b2, ties = m, control = ctl)),
  wlw = cox(coxph(Surv(stop, event) ~ rx + size + number + strata(enum) + cluster(id), bladder, ties = m, control = ctl))))

six <- c("albumin", "copper", "protime", "ast", "log_bili", "platelet")
out$score_tests <- both(function(p) {
  p <- p[complete.cases(p[, c("age", six)]), ]
  ties(function(m) {
    base <- coxph(Surv(t, status == 2) ~ age, p, ties = m, control = ctl)
    chisq <- sapply(six, function(v) coxph(as.formula(paste("Surv(t, status == 2) ~ age +", v)), p, ties = m,
                                           init = c(coef(base), 0), iter.max = 0)$score)
    list(terms = six, chisq = unname(chisq), p = unname(pchisq(chisq, 1, lower.tail = FALSE)), n = base$n, events = base$nevent,
         base_coef = unname(coef(base)), base_loglik = base$loglik[2])
  })
})

# glmnet puts a censoring after a tied death by adding 2e-14 to its time, which is lost for times in days: hence t / 1000
out$lasso_cox <- both(function(p) {
  p <- p[complete.cases(p[, c("age", six)]), ]
  x <- as.matrix(p[, c("age", six)]); lambda <- c(0.2, 0.1, 0.05, 0.01)
  fit <- glmnet(x, Surv(p$t / 1000, p$status == 2), family = "cox", alpha = 1, lambda = lambda, thresh = 1e-20, maxit = 1e7)
  list(terms = colnames(x), lambda = fit$lambda, coef = lapply(seq_along(lambda), function(k) unname(as.matrix(fit$beta)[, k])), n = nrow(x))
})
write_json(out, args[2], digits = 17, auto_unbox = TRUE, pretty = TRUE, null = "null", na = "null")
