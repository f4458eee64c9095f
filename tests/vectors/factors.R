# Factor analysis: factanal on complete rows; EM written out, person by person, where layers are missing.
#   Rscript tests/vectors/factors.R SHARED_DATA OUT.json
suppressMessages(library(jsonlite))
args <- commandArgs(trailingOnly = TRUE)
fit <- function(x, k) {
  f <- factanal(x, k, rotation = "none", control = list(opt = list(factr = 1, maxit = 5000, pgtol = 0)))
  l <- unclass(f$loadings); attr(l, "dimnames") <- NULL
  turned <- if (k > 1) unclass(varimax(l, eps = 1e-16)$loadings) else l
  list(k = k, uniqueness = unname(f$uniquenesses), loadings = unname(l), varimax = unname(turned),
       objective = unname(f$criteria["objective"]), statistic = unname(f$STATISTIC), dof = f$dof, n = f$n.obs)
}
voice <- read.csv(file.path(args[1], "parkinsons-telemonitoring/parkinsons_updrs.csv"), check.names = FALSE)[, -(1:6)]
voice <- voice[, setdiff(names(voice), c("Jitter:DDP", "Shimmer:DDA"))] # three times two of the others: factanal stops
genes <- function(name) t(as.matrix(read.csv(gzfile(file.path(args[1], "bladder-expression", paste0(name, ".expr.csv.gz"))), row.names = 1)))
cohorts <- lapply(c("GSE37317", "GSE89", "PMID17099711.GPL91"), genes)
shared <- sort(Reduce(intersect, lapply(cohorts, function(x) colnames(x)[colSums(is.na(x)) == 0])), method = "radix")
chosen <- shared[seq(1, length(shared), length.out = 24)]
bladder <- do.call(rbind, lapply(cohorts, function(x) scale(x[, chosen], scale = FALSE)))

# PBC: the trial's layer is missing for all who were only followed, single values for some.
pbc <- read.csv(file.path(args[1], "survival-reference/pbc.csv"))
for (v in c("bili", "protime", "chol", "copper", "alk.phos", "ast", "trig")) pbc[[v]] <- log(pbc[[v]])
names_ <- c("bili", "albumin", "protime", "platelet", "age", "chol", "copper", "alk.phos", "ast", "trig")
x <- as.matrix(pbc[, names_]); n <- nrow(x); p <- ncol(x); k <- 2
sd_ <- apply(x, 2, function(v) sqrt(mean((v - mean(v, na.rm = TRUE))^2, na.rm = TRUE)))
s <- sweep(sweep(x, 2, colMeans(x, na.rm = TRUE)), 2, sd_, "/")
start <- factanal(na.omit(s), k, rotation = "none")
w <- unclass(start$loadings); psi <- unname(start$uniquenesses); mu <- rep(0, p)
loglik <- function(w, psi, mu) {
  total <- 0; sigma <- w %*% t(w) + diag(psi)
  for (i in 1:n) { o <- !is.na(s[i, ]); r <- s[i, o] - mu[o]; v <- sigma[o, o, drop = FALSE]
    total <- total - 0.5 * (sum(o) * log(2 * pi) + as.numeric(determinant(v)$modulus) + sum(r * solve(v, r))) }
  total
}
scores <- function(w, psi, mu) t(sapply(1:n, function(i) { o <- !is.na(s[i, ])
  solve(diag(k) + t(w[o, ]) %*% (w[o, ] / psi[o]), t(w[o, ]) %*% ((s[i, o] - mu[o]) / psi[o])) }))
for (step in 1:6000) {
  a <- array(0, c(p, k + 1, k + 1)); b <- matrix(0, p, k + 1); q <- m <- rep(0, p)
  for (i in 1:n) {
    o <- !is.na(s[i, ]); v <- solve(diag(k) + t(w[o, ]) %*% (w[o, ] / psi[o]))
    z <- v %*% t(w[o, ]) %*% ((s[i, o] - mu[o]) / psi[o])
    second <- rbind(c(1, z), cbind(z, v + z %*% t(z)))
    for (j in which(o)) { a[j, , ] <- a[j, , ] + second; b[j, ] <- b[j, ] + s[i, j] * c(1, z); q[j] <- q[j] + s[i, j]^2; m[j] <- m[j] + 1 }
  }
  new <- t(sapply(1:p, function(j) solve(a[j, , ], b[j, ])))
  noise <- sapply(1:p, function(j) (q[j] - sum(new[j, ] * b[j, ])) / m[j])
  moved <- max(abs(noise - psi), abs(new[, -1] %*% t(new[, -1]) - w %*% t(w)), abs(new[, 1] - mu))
  mu <- new[, 1]; w <- new[, -1]; psi <- noise
  if (moved < 1e-10) break
}
l <- w %*% svd(w / sqrt(psi))$v
turned <- varimax(l, eps = 1e-16); l <- unclass(turned$loadings)
order_ <- order(-colSums(l^2)); l <- l[, order_]; sign_ <- ifelse(colSums(l) < 0, -1, 1); l <- sweep(l, 2, sign_, "*")
z <- scores(l, psi, mu)
a <- lapply(1:k, function(j) { c <- coef(summary(lm(z[, j] ~ pbc$age + pbc$sex))); list(coef = unname(c[, 1]), se = unname(c[, 2])) })
out <- list(
  voice = list(names = names(voice), k2 = fit(voice, 2), k3 = fit(voice, 3)),
  bladder = list(genes = chosen, k2 = fit(bladder, 2), k4 = fit(bladder, 4)),
  pbc = list(names = names_, steps = step, uniqueness = psi, implied = unname(l %*% t(l)), varimax = unname(l),
             mean = mu, loglik = loglik(l, psi, mu) - sum(colSums(!is.na(x)) * log(sd_)), n = n, associated = a)
)
write(toJSON(out, digits = 15, auto_unbox = TRUE), args[2])
