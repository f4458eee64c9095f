# Reference numbers for cox, kaplan_meier and logrank. Run: Rscript survival.R SHARED_DATA BYAR_CSV OUT.json
suppressMessages({library(survival); library(jsonlite)})
args <- commandArgs(trailingOnly = TRUE)
data <- args[1]
grid <- function(t, w) if (w == 0) t else ceiling(round(t / w, 9)) * w
cox <- function(fit) {
  s <- summary(fit)
  list(terms = names(coef(fit)), coef = unname(coef(fit)),
       se = unname(if (is.null(fit$naive.var)) sqrt(diag(fit$var)) else sqrt(diag(fit$naive.var))),
       robust = if (is.null(fit$naive.var)) NULL else unname(sqrt(diag(fit$var))),
       loglik = fit$loglik, n = fit$n, events = fit$nevent,
       lr = unname(s$logtest["test"]), score = unname(s$sctest["test"]), wald = unname(s$waldtest["test"]))
}
ctl <- coxph.control(eps = 1e-11, iter.max = 50, toler.chol = 1e-13)
km <- function(fit, tau) {
  t <- summary(fit, rmean = tau)$table
  if (is.null(dim(t))) t <- t(as.matrix(t))
  s <- summary(fit)
  st <- if (is.null(s$strata)) rep("all", length(s$time)) else as.character(s$strata)
  list(median = unname(t[, "median"]), rmst = unname(t[, grep("^.?rmean$", colnames(t))]),
       rmst_se = unname(t[, grep("se\\(rmean\\)", colnames(t))]),
       strata = st, time = s$time, surv = s$surv, se = s$std.err, lower = s$lower, upper = s$upper,
       n_risk = s$n.risk, n_event = s$n.event)
}
lr <- function(fit) list(chisq = fit$chisq, obs = as.vector(if (is.matrix(fit$obs)) rowSums(fit$obs) else fit$obs),
                         exp = as.vector(if (is.matrix(fit$exp)) rowSums(fit$exp) else fit$exp))
lung <- read.csv(file.path(data, "survival-reference/lung.csv"))
pbc <- read.csv(file.path(data, "survival-reference/pbc.csv"))
b1 <- read.csv(file.path(data, "bladder-recurrence/bladder1.csv"))
b2 <- read.csv(file.path(data, "bladder-recurrence/bladder2.csv"))
tcga <- read.csv(file.path(data, "tcga-blca/clinical.csv"))
byar <- read.csv(args[2])
out <- list(version = paste(R.version.string, "survival", packageVersion("survival")))
for (ties in c("efron", "breslow")) for (w in c(0, 30)) {
  l <- lung; l$t <- grid(l$time, w)
  p <- pbc; p$t <- grid(p$time, w)
  out[[paste("lung", ties, w, sep = "_")]] <- cox(coxph(Surv(t, status) ~ age + sex + ph.ecog, l, ties = ties, control = ctl))
  out[[paste("lung_strata", ties, w, sep = "_")]] <- cox(coxph(Surv(t, status) ~ age + ph.ecog + strata(sex), l, ties = ties, control = ctl))
  out[[paste("pbc", ties, w, sep = "_")]] <- cox(coxph(Surv(t, status == 2) ~ age + edema + log(bili) + log(albumin) + log(protime), p, ties = ties, control = ctl))
}
l <- lung; l$site <- (seq_len(nrow(l)) - 1) %% 3
out$lung_by_site <- cox(coxph(Surv(time, status) ~ age + sex + ph.ecog + strata(site), l, control = ctl))
for (ties in c("efron", "breslow")) {
  out[[paste0("ag_", ties)]] <- cox(coxph(Surv(start, stop, event) ~ rx + size + number + cluster(id), b2, ties = ties, control = ctl))
  out[[paste0("pwp_", ties)]] <- cox(coxph(Surv(start, stop, event) ~ rx + size + number + cluster(id) + strata(enum), b2, ties = ties, control = ctl))
  out[[paste0("first_", ties)]] <- cox(coxph(Surv(stop, event) ~ rx + size + number, subset(b2, enum == 1), ties = ties, control = ctl))
}
out$byar_ag <- cox(coxph(Surv(start_months, stop_months, recurrence) ~ treatment + tumour_count + largest_tumour_cm + cluster(person_id), byar, control = ctl))
b2$site <- b2$id %% 3
out$ag_by_site <- cox(coxph(Surv(start, stop, event) ~ rx + size + number + cluster(id) + strata(site), b2, control = ctl))
keep <- complete.cases(tcga[, c("os_days", "os_event", "age", "sex", "path_stage")]) & tcga$os_days > 0 & tcga$path_stage != "stage i"
tc <- tcga[keep, ]
for (w in c(0, 30)) { tc$t <- grid(tc$os_days, w)
  out[[paste0("tcga_", w)]] <- cox(coxph(Surv(t, os_event) ~ age + sex + factor(path_stage), tc, control = ctl)) }
for (w in c(0, 30)) {
  l <- lung; l$t <- grid(l$time, w)
  out[[paste0("km_lung_", w)]] <- km(survfit(Surv(t, status) ~ sex, l), "individual")
  out[[paste0("km_all_", w)]] <- km(survfit(Surv(t, status) ~ 1, l), "individual")
  out[[paste0("lr_lung_", w)]] <- lr(survdiff(Surv(t, status) ~ sex, l))
  out[[paste0("peto_lung_", w)]] <- lr(survdiff(Surv(t, status) ~ sex, l, rho = 1))
  out[[paste0("lr_strata_", w)]] <- lr(survdiff(Surv(t, status) ~ ph.ecog + strata(sex), subset(l, ph.ecog < 3)))
}
out$km_byar <- km(survfit(Surv(first_months, first_recurrence) ~ treatment, byar), "individual")
out$lr_byar <- lr(survdiff(Surv(first_months, first_recurrence) ~ treatment, byar))
write_json(out, args[3], digits = NA, auto_unbox = FALSE, pretty = TRUE, null = "null")
