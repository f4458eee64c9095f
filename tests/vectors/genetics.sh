#!/usr/bin/env bash
# Reference numbers for genotype counts, association tests, components and scores. Run: bash genetics.sh SHARED_DATA OUT.json
set -euo pipefail
at="$1/gwas-toy/regenie"
tmp="$(mktemp -d)"
trap 'rm -rf "$tmp"' EXIT
# The set has no missing genotype: `masked` is the same with person i missing at SNP j where 29 divides 7i + 13j, both from 0.
cat > "$tmp/prepare.R" <<'R'
args <- commandArgs(trailingOnly = TRUE)
at <- args[1]; tmp <- args[2]
bim <- read.table(file.path(at, "example.bim"))
n <- nrow(read.table(file.path(at, "example.fam"))); m <- nrow(bim)
raw <- readBin(file.path(at, "example.bed"), "raw", 3 + m * ceiling(n / 4))
bits <- array(as.integer(rawToBits(raw[-(1:3)])), c(2, 4 * ceiling(n / 4), m))
gone <- outer(seq_len(n) - 1, seq_len(m) - 1, function(i, j) (7 * i + 13 * j) %% 29 == 0)
bits[1, 1:n, ][gone] <- 1L
bits[2, 1:n, ][gone] <- 0L
writeBin(c(raw[1:3], packBits(as.integer(bits))), file.path(tmp, "masked.bed"))
s <- seq(1, m, by = 20)
write.table(data.frame(bim$V2[s], bim$V5[s], sprintf("%.4f", sin(seq_along(s)))), file.path(tmp, "weights"), quote = FALSE, row.names = FALSE, col.names = FALSE)
R
Rscript "$tmp/prepare.R" "$at" "$tmp"
cp "$at/example.bed" "$tmp/whole.bed"
p2() { plink2 --bed "$tmp/$set.bed" --bim "$at/example.bim" --fam "$at/example.fam" --threads 1 --out "$tmp/$set" "$@" > "$tmp/log" 2>&1 || { cat "$tmp/log" >&2; exit 1; }; }
glm=(allow-no-covars omit-ref hide-covar)
covar=(--covar "$at/covariates.txt" --covar-name V1-V3)
for set in whole masked; do
  p2 --hardy --geno-counts
  p2 --pheno "$at/phenotype.txt" --pheno-name Y1 "${covar[@]}" --glm "${glm[@]}"
  p2 --1 --pheno "$at/phenotype_bin.txt" --pheno-name Y1 "${covar[@]}" --glm no-firth "${glm[@]}"
  p2 --pca 4 meanimpute
  p2 --score "$tmp/weights" 1 2 3 cols=+scoresums
done
plink2 --version > "$tmp/version"
cat > "$tmp/genetics.R" <<'R'
suppressMessages(library(jsonlite))
args <- commandArgs(trailingOnly = TRUE)
at <- args[1]; tmp <- args[2]
bim <- read.table(file.path(at, "example.bim"), col.names = c("chr", "id", "cm", "pos", "a1", "a2"))
fam <- read.table(file.path(at, "example.fam"))
n <- nrow(fam); m <- nrow(bim)
own <- function(name) { d <- read.table(file.path(at, name), header = TRUE); d[match(paste(fam$V1, fam$V2), paste(d$FID, d$IID)), -(1:2)] }
d <- data.frame(y = own("phenotype.txt")$Y1, z = own("phenotype_bin.txt")$Y1, own("covariates.txt"))
stopifnot(complete.cases(d))
s <- seq(1, m, by = 20)
w <- round(sin(seq_along(s)), 4)
v <- function(x) unname(as.numeric(x))
near <- function(a, b, tol = 1e-5) stopifnot(length(a) == length(b), abs(a - b) <= tol * abs(b) + 1e-6)
# Exact test of Hardy and Weinberg: every table as likely as ours or less, given the count of each allele.
hwe <- function(x) {
  x <- x[!is.na(x)]
  rare <- min(sum(x), 2 * length(x) - sum(x)); het <- sum(x == 1)
  h <- seq(rare %% 2, rare, by = 2)
  l <- h * log(2) - lfactorial(h) - lfactorial((rare - h) / 2) - lfactorial(length(x) - (rare + h) / 2)
  p <- exp(l - max(l))
  min(1, sum(p[p <= p[h == het] * (1 + 1e-9)]) / sum(p))
}
control <- glm.control(epsilon = 1e-14, maxit = 100)
# A person with no genotype is left out of that SNP's model.
linear_of <- function(g) {
  x <- apply(g, 2, function(x) { f <- lm(y ~ x + V1 + V2 + V3, data.frame(d, x)); c(coef(summary(f))["x", ], f$df.residual) })
  list(beta = x[1, ], se = x[2, ], t = x[3, ], p = x[4, ], df = x[5, ])
}
logistic_of <- function(g) {
  x <- apply(g, 2, function(x) {
    u <- na.omit(data.frame(d, x))
    null <- glm(z ~ V1 + V2 + V3, binomial, u, control = control)
    full <- glm(z ~ x + V1 + V2 + V3, binomial, u, control = control)
    a <- anova(null, full, test = "Rao")
    c(coef(summary(full))["x", ], a$Rao[2], a$`Pr(>Chi)`[2], null$deviance - full$deviance)
  })
  list(beta = x[1, ], se = x[2, ], z = x[3, ], p = x[4, ], rao = x[5, ], rao_p = x[6, ], lr = x[7, ])
}
all_of <- function(set) {
  get <- function(name) read.table(file.path(tmp, paste0(set, ".", name)), header = TRUE, comment.char = "", check.names = FALSE)
  # Two bits a person, low bits first: 00 two A1, 01 missing, 10 one A1, 11 none. g counts A1, which plink2 calls ALT.
  raw <- readBin(file.path(tmp, paste0(set, ".bed")), "raw", 3 + m * ceiling(n / 4))
  stopifnot(raw[1:3] == as.raw(c(0x6c, 0x1b, 0x01)))
  bits <- matrix(as.integer(rawToBits(raw[-(1:3)])), 2)
  g <- matrix(c(2, NA, 1, 0)[1 + bits[1, ] + 2 * bits[2, ]], ncol = m)[1:n, ]
  gone <- colSums(is.na(g))
  count <- function(k) colSums(g == k, na.rm = TRUE)
  exact <- apply(g, 2, hwe)
  hardy <- get("hardy"); tally <- get("gcount")
  stopifnot(tally$HOM_REF_CT == count(0), tally$HET_REF_ALT_CTS == count(1), tally$TWO_ALT_GENO_CTS == count(2), tally$MISSING_CT == gone)
  near(hardy$P, exact)

  linear <- linear_of(g[, s]); logistic <- logistic_of(g[, s])
  lin <- get("Y1.glm.linear")[s, ]; logi <- get("Y1.glm.logistic")[s, ]
  stopifnot(lin$A1 == bim$a1[s], lin$ID == bim$id[s], logi$ERRCODE == ".", lin$OBS_CT == n - gone[s])
  near(lin$BETA, linear$beta); near(lin$SE, linear$se); near(lin$T_STAT, linear$t); near(lin$P, linear$p)
  near(logi$OR, exp(logistic$beta)); near(logi$`LOG(OR)_SE`, logistic$se); near(logi$P, logistic$p, 1e-4)

  # A = ZZ' / M over the M SNPs that vary, Z = (x - 2p) / sqrt(2p(1 - p)), p = mean(x) / 2 over those seen, 0 where x is missing.
  p <- colMeans(g, na.rm = TRUE) / 2
  vary <- p > 0 & p < 1
  z <- sweep(sweep(g[, vary], 2, 2 * p[vary]), 2, sqrt(2 * p * (1 - p))[vary], "/")
  z[is.na(z)] <- 0
  e <- eigen(tcrossprod(z) / sum(vary), symmetric = TRUE)
  near(get("eigenvec")$IID, fam$V2)
  near(scan(file.path(tmp, paste0(set, ".eigenval")), quiet = TRUE), e$values[1:4])
  near(abs(colSums(e$vectors[, 1:4] * get("eigenvec")[, paste0("PC", 1:4)])), rep(1, 4))

  filled <- g[, s]
  for (j in seq_along(s)) filled[is.na(filled[, j]), j] <- 2 * p[s[j]]
  scores <- v(filled %*% w)
  near(get("sscore")$SCORE1_SUM, scores)
  out <- list(
    missing = sum(gone),
    freq_hwe = list(hom_a1 = v(count(2)[s]), het = v(count(1)[s]), hom_a2 = v(count(0)[s]), missing = v(gone[s]), a1_freq = p[s],
                    p = exact[s], plink2_p = hardy$P[s],
                    total = list(dosage = sum(g, na.rm = TRUE), het = sum(count(1)), sum_logp = sum(log(exact)))),
    linear = c(linear, list(plink2 = list(beta = lin$BETA, se = lin$SE, t = lin$T_STAT, p = lin$P))), logistic = logistic,
    pca = list(snps = sum(vary), values = e$values[1:5], trace = sum(e$values), vectors = unname(e$vectors[, 1:4])),
    prs = list(weights = w, scores = scores))
  # The same models where a missing genotype counts as the SNP's mean, 2p; plink2 has no such model.
  if (any(gone > 0)) out$filled <- list(linear = linear_of(filled), logistic = logistic_of(filled))
  out
}
# toJSON writes 15 digits at most; a double needs up to 17, so each one goes in as the shortest text that reads back the same.
exactly <- function(x) {
  if (is.list(x)) return(lapply(x, exactly))
  if (!is.double(x)) return(x)
  s <- sprintf("%.15g", x)
  for (f in c("%.16g", "%.17g")) { off <- as.numeric(s) != x; s[off] <- sprintf(f, x[off]) }
  stopifnot(is.finite(x), as.numeric(s) == x)
  s <- paste0("#", s)
  if (is.null(dim(x))) s else array(s, dim(x))
}
out <- c(list(r = R.version.string, plink2 = readLines(file.path(tmp, "version"))[1], people = n, snps = m, index = s - 1L,
              id = as.character(bim$id[s]), a1 = as.character(bim$a1[s]), a2 = as.character(bim$a2[s])),
         all_of("whole"), list(masked = all_of("masked")))
text <- toJSON(exactly(out), auto_unbox = TRUE, pretty = TRUE, digits = 17)
write(gsub(", ", ",", gsub("\"#([^\"]*)\"", "\\1", text)), args[3])
R
Rscript "$tmp/genetics.R" "$at" "$tmp" "$2"
