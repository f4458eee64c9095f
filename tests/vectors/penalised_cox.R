# Cross-validated penalised Cox paths on survival::pbc, folds by row.   Rscript tests/vectors/penalised_cox.R OUT.json
suppressMessages({ library(survival); library(glmnet); library(jsonlite) })
args <- commandArgs(trailingOnly = TRUE)
names <- c("age", "albumin", "copper", "protime", "ast", "platelet")
p <- pbc[complete.cases(pbc[, names]), ]
x <- cbind(as.matrix(p[, names]), log_bili = log(p$bili))
fold <- (seq_len(nrow(x)) - 1) %% 5 + 1
lambda <- c(0.2, 0.1, 0.05, 0.01)
one <- function(time, alpha) {
  y <- Surv(time / 1000, p$status == 2) # glmnet moves censored times by 100 machine epsilons, which long times would lose
  fit <- cv.glmnet(x, y, family = "cox", alpha = alpha, lambda = lambda, foldid = fold, thresh = 1e-20, maxit = 1e7)
  whole <- glmnet(x, y, family = "cox", alpha = alpha, lambda = lambda, thresh = 1e-20, maxit = 1e7)
  list(alpha = alpha, lambda = lambda, coef = unname(t(as.matrix(whole$beta))), cvm = fit$cvm, cvsd = fit$cvsd)
}
month <- ceiling(p$time / 30) * 30
out <- list(terms = colnames(x), n = nrow(x), monthly = lapply(c(1, 0.5), function(a) one(month, a)), exact = lapply(c(1, 0.5), function(a) one(p$time, a)))
write(toJSON(out, digits = 15, auto_unbox = TRUE), args[1])
