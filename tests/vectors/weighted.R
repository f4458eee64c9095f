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
write(toJSON(out, digits = 17, auto_unbox = TRUE, pretty = TRUE), args[2])
