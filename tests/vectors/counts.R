# Reference numbers for count_expression on invented counts, easy and hard. Run: Rscript counts.R OUT.json
suppressMessages({ library(jsonlite); library(edgeR); library(limma) })
args <- commandArgs(trailingOnly = TRUE)
set.seed(7)
sizes <- c(20, 14, 9, 1, 16)
n <- sum(sizes)
site <- factor(rep(c("a", "b", "c", "b", "a"), sizes))  # the fourth holder has one row
holder <- rep(seq_along(sizes) - 1L, sizes)
group <- rbinom(n, 1, 0.45)
age <- round(rnorm(n, 60, 10), 1)
depth <- exp(rnorm(n, 0, 0.4))
genes <- 60
phi <- signif(exp(rnorm(genes, log(0.2), 0.7)), 4)
mu0 <- exp(runif(genes, log(2), log(2000)))
effect <- ifelse(seq_len(genes) %% 4 == 0, rnorm(genes, 0, 1), 0)
counts <- t(sapply(seq_len(genes), function(g)
  rnbinom(n, mu = mu0[g] * depth * exp(effect[g] * group + 0.3 * (site == "b") + 0.01 * (age - 60)), size = 1 / phi[g])))
rownames(counts) <- sprintf("g%02d", seq_len(genes))
counts["g01", site == "c"] <- 0                      # absent at one site
counts["g02", group == 1] <- 0                       # absent in one group
counts["g03", group == 0] <- 0                       # and in the other
counts["g04", ] <- 0                                 # absent
counts["g05", ] <- rnbinom(n, mu = 0.15, size = 5)   # hardly there
counts["g06", ] <- round(counts["g06", ] * 1e6)      # far more than all others
counts["g07", ] <- counts["g07", ] + 1
counts["g08", group == 1 & site != "a"] <- 0         # absent in one group at some sites
phi[9] <- 0; phi[10] <- 1e-6; phi[11] <- 20; phi[7] <- 0.001
samples <- data.frame(site, group, age)
design <- model.matrix(~ site + age + group, samples)
dge <- calcNormFactors(DGEList(counts), method = "upperquartile")
offset <- log(dge$samples$lib.size * dge$samples$norm.factors)
family <- function(d) if (d == 0) poisson() else MASS::negative.binomial(1 / d)
# R's deviance subtracts large numbers; the same, written without.
deviance <- function(y, mu, d) {
  rest <- if (d > 0) log1p(d * (y - mu) / (1 + d * mu)) / d else y - mu
  2 * sum(ifelse(y > 0, y * log1p((y - mu) / (mu * (1 + d * y))), 0) - rest)
}
# glm's Fisher scoring stops where the deviance stands still; Newton's steps go on where the maximum is finite.
ended <- function(y, x, beta, d, offset) {
  for (i in 1:5) {
    mu <- c(exp(x %*% beta + offset))
    if (max(abs(beta)) > 25 || min(mu) < 1e-6) break
    beta <- beta + solve(crossprod(x * mu * (1 + d * y) / (1 + d * mu)^2, x), crossprod(x, (y - mu) / (1 + d * mu)))
  }
  c(beta)
}
one <- function(g, d, offset) {
  y <- counts[g, ]
  fit <- function(x) {
    r <- suppressWarnings(glm.fit(x, y, family = family(d), offset = offset, control = glm.control(epsilon = 1e-300, maxit = 80)))
    beta <- ended(y, x, coef(r), d, offset)
    mu <- c(exp(x %*% beta + offset))
    list(beta = beta, deviance = deviance(y, mu, d), 
         v = tryCatch(solve(crossprod(x * mu / (1 + d * mu), x), tol = 1e-300), error = function(e) diag(NA, ncol(x))))
  }
  full <- fit(design)
  k <- ncol(design)
  c(full$beta[k] / log(2), sqrt(full$v[k, k]) / log(2), fit(design[, -k])$deviance - full$deviance)
}
tight <- function(genes, phi, offset) {
  found <- sapply(genes, function(g) one(g, phi[[g]], offset))
  list(genes = rownames(counts)[genes], estimate = found[1, ], se = found[2, ], lr = found[3, ], p = pchisq(found[3, ], 1, lower.tail = FALSE))
}
# The common dispersion that edgeR stops near: the maximum of a polynomial through its own likelihood.
common <- function(genes) {
  own <- calcNormFactors(DGEList(counts[genes, ]), method = "upperquartile")
  off <- log(own$samples$lib.size * own$samples$norm.factors)
  near <- log(estimateGLMCommonDisp(own, design)$common.dispersion)
  at <- 0.02 * (-3:3)
  value <- sapply(near + at, function(t) sum(adjustedProfileLik(exp(t), counts[genes, ], design, offset = off)))
  cf <- coef(lm(I(value - max(value)) ~ poly(at, 4, raw = TRUE)))
  slope <- function(z) cf[[2]] + 2 * cf[[3]] * z + 3 * cf[[4]] * z^2 + 4 * cf[[5]] * z^3
  list(edger = exp(near), dispersion = exp(near + uniroot(slope, range(at), tol = 1e-14)$root))
}
present <- setdiff(seq_len(genes), 4)
edger <- glmLRT(glmFit(dge[present, ], design, dispersion = phi[present], prior.count = 0), coef = "group")
out <- list(
  r = R.version.string, edger_version = as.character(packageVersion("edgeR")),
  counts = unname(counts), holder = holder, site = as.character(site), group = group, age = age, dispersions = phi,
  each = tight(present, phi, offset), one = tight(present, rep(0.3, genes), offset),
  unscaled = tight(present, rep(0.3, genes), log(colSums(counts))),
  common = common(12:60),
  edger = list(genes = rownames(counts)[present], lr = edger$table$LR, factors = dge$samples$norm.factors))
stopifnot(abs(out$each$lr - edger$table$LR) < 1e-2)
write(toJSON(out, auto_unbox = TRUE, digits = 17, na = "null"), args[1])
