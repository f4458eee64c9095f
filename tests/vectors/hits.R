# Reference numbers for the hits of a scan of binary traits: Firth's regression and its ratio test, by the modified
# score written out and by plink2; and the saddlepoint approximation of the score test, written out (as SAIGE has it).
# Run: Rscript hits.R SHARED_DATA OUT.json
suppressMessages(library(jsonlite))
args <- commandArgs(trailingOnly = TRUE)
at <- file.path(args[1], "gwas-toy/regenie")
tmp <- tempfile("hits"); dir.create(tmp)
near <- function(a, b, tol) stopifnot(length(a) == length(b), is.finite(a), abs(a - b) <= tol * abs(b) + 1e-6)

# --- Firth's regression of one model; `free` columns are fitted, the others held at 0 under the whole model's penalty.
firth <- function(x, y, free = seq_len(ncol(x))) {
  b <- numeric(ncol(x))
  for (i in 1:5000) {
    p <- plogis(drop(x %*% b)); q <- qr(sqrt(p * (1 - p)) * x); h <- rowSums(qr.Q(q)^2)
    u <- crossprod(x, y - p + h * (0.5 - p)); step <- numeric(ncol(x))
    step[free] <- solve(crossprod(x[, free, drop = FALSE], p * (1 - p) * x[, free, drop = FALSE]), u[free])
    b <- b + step * min(1, 2 / max(abs(step)))
    if (max(abs(step)) < 1e-14) break
  }
  stopifnot(max(abs(step)) < 1e-12)
  e <- drop(x %*% b)
  list(b = b, se = sqrt(diag(solve(crossprod(x, p * (1 - p) * x)))),
       value = sum(y * e - log1p(exp(e))) + determinant(crossprod(x, dlogis(e) * x))$modulus[1] / 2)
}
# --- both tails of the score of what covariates leave of g, by Barndorff-Nielsen's formula.
spa <- function(v, y, x) {
  mu <- glm.fit(x, y, family = binomial(), control = glm.control(epsilon = 1e-15, maxit = 100))$fitted.values
  w <- mu * (1 - mu); g <- v - drop(x %*% solve(crossprod(x, w * x), crossprod(x, w * v))); s <- sum(g * (y - mu))
  k <- function(t) { a <- g * t; sum(ifelse(a > 30, a + log(mu + (1 - mu) * exp(-a)), log1p(mu * expm1(pmin(a, 30)))) - a * mu) }
  k1 <- function(t) sum(g * (plogis(qlogis(mu) + g * t) - mu)); k2 <- function(t) sum(g^2 * dlogis(qlogis(mu) + g * t))
  tail <- function(s) {
    far <- sign(s) / max(abs(g)); while (abs(k1(far)) < abs(s)) { far <- 2 * far; if (abs(far) * max(abs(g)) > 1e6) return(0) }
    t <- uniroot(function(t) k1(t) - s, sort(c(0, far)), tol = 1e-15, maxiter = 10000)$root
    for (i in 1:5) t <- t - (k1(t) - s) / k2(t)
    stopifnot(abs(k1(t) / s - 1) < 1e-9)
    r <- sign(t) * sqrt(2 * (t * s - k(t))); z <- r + log(t * sqrt(k2(t)) / r) / r
    pnorm(-abs(z))
  }
  tail(s) + tail(-s)
}
tested <- function(g, y, covariates) {
  found <- apply(g, 2, function(v) {
    x <- cbind(1, covariates, v - mean(v)); k <- ncol(x)
    whole <- firth(x, y); held <- firth(x, y, seq_len(k - 1))
    null <- glm(y ~ covariates, family = binomial, control = glm.control(epsilon = 1e-14, maxit = 100))
    rao <- anova(null, glm(y ~ covariates + v, family = binomial), test = "Rao")$`Pr(>Chi)`[2]
    c(whole$b[k], whole$se[k], pchisq(2 * (whole$value - held$value), 1, lower.tail = FALSE), rao, spa(v, y, cbind(1, covariates)))
  })
  list(estimate = found[1, ], se = found[2, ], p = found[3, ], rao_p = found[4, ], saddlepoint_p = found[5, ])
}
# plink2 stops early, at about 1e-4, and its p values are Wald's.
plink <- function(prefix, pheno, covar, kind) {
  log <- system2("plink2", c(kind, "--pheno", pheno, "--pheno-name", "Y1", "--1", "--covar", covar, "--glm firth omit-ref hide-covar cols=+beta,-orbeta",
                             "--threads 1", "--out", prefix), stdout = TRUE)
  read.table(paste0(prefix, ".Y1.glm.firth"), header = TRUE, comment.char = "", check.names = FALSE)
}
like_plink <- function(found, theirs) {
  stopifnot(theirs$ERRCODE == ".")
  near(theirs$BETA, found$estimate, 3e-4); near(theirs$SE, found$se, 3e-4)
  near(theirs$P, 2 * pnorm(-abs(found$estimate / found$se)), 1e-3)
  c(found, list(plink2 = list(beta = theirs$BETA, se = theirs$SE, p = theirs$P)))
}

# --- the toy set of regenie: the SNPs whose score test is below 0.05.
bim <- read.table(file.path(at, "example.bim")); fam <- read.table(file.path(at, "example.fam"))
n <- nrow(fam); m <- nrow(bim)
raw <- readBin(file.path(at, "example.bed"), "raw", 3 + m * ceiling(n / 4))
bits <- matrix(as.integer(rawToBits(raw[-(1:3)])), 2)
g <- matrix(c(2, NA, 1, 0)[1 + bits[1, ] + 2 * bits[2, ]], ncol = m)[1:n, ]
own <- function(name) { d <- read.table(file.path(at, name), header = TRUE); d[match(fam$V2, d$IID), -(1:2)] }
y <- own("phenotype_bin.txt")$Y1; covariates <- as.matrix(own("covariates.txt"))
base <- glm.fit(cbind(1, covariates), y, family = binomial(), control = glm.control(epsilon = 1e-14, maxit = 100))
w <- base$fitted.values * (1 - base$fitted.values); x <- cbind(1, covariates)
left <- g - x %*% solve(crossprod(x, w * x), crossprod(x, w * g))
p <- pchisq(drop(crossprod(left, y - base$fitted.values))^2 / colSums(w * left^2), 1, lower.tail = FALSE)
hits <- which(!is.na(p) & colSums(w * left^2) > 1e-9 & p < 0.05)
toy <- tested(g[, hits], y, covariates)
near(toy$rao_p, p[hits], 1e-6)
all <- plink(file.path(tmp, "toy"), file.path(at, "phenotype_bin.txt"), file.path(at, "covariates.txt"), paste("--bfile", file.path(at, "example")))
toy <- c(list(id = as.character(bim$V2[hits])), like_plink(toy, all[match(bim$V2[hits], all$ID), ]))

# --- rare variants and few cases: carried by cases only, by controls only, by everybody but few, by both; one is common.
set.seed(20)
n <- 900
rare <- data.frame(age = round(rnorm(n), 3), sex = rep(0:1, length.out = n))
rare$y <- as.numeric(runif(n) < plogis(-2.6 + 0.6 * rare$age + 0.4 * rare$sex))
ca <- which(rare$y == 1); co <- which(rare$y == 0)
carried <- function(who, copies = 1) { v <- numeric(n); v[who] <- copies; v }
rare$rs_cases <- carried(ca[1:7]); rare$rs_controls <- carried(co[1:60]); rare$rs_both <- carried(c(ca[3:8], co[1:8]))
rare$rs_homo <- carried(c(ca[10:12], co[30]), 2) + carried(c(ca[20:22], co[40:44]))
rare$rs_common <- rbinom(n, 2, plogis(-0.5 + 0.5 * rare$y)); rare$rs_all <- 2 - carried(c(ca[9:14], co[70]))
names <- grep("^rs", names(rare), value = TRUE)
few <- tested(as.matrix(rare[names]), rare$y, as.matrix(rare[c("age", "sex")]))
vcf <- file.path(tmp, "rare.vcf"); people <- paste0("p", 1:n)
lines <- sapply(seq_along(names), function(j) paste(c(1, 100 * j, names[j], "G", "A", ".", ".", ".", "GT", c("0/0", "0/1", "1/1")[rare[[names[j]]] + 1]), collapse = "\t"))
writeLines(c("##fileformat=VCFv4.2", "##contig=<ID=1>", "##FORMAT=<ID=GT,Number=1,Type=String,Description=\"G\">",
             paste(c("#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT", people), collapse = "\t"), lines), vcf)
table <- function(d, name) { f <- file.path(tmp, name); write.table(data.frame(`#IID` = people, d, check.names = FALSE), f, quote = FALSE, row.names = FALSE, sep = "\t"); f }
theirs <- plink(file.path(tmp, "rare"), table(data.frame(Y1 = rare$y), "pheno"), table(rare[c("age", "sex")], "covar"), paste("--vcf", vcf))
few <- c(list(id = names, data = as.list(rare)), like_plink(few, theirs))

# --- 12 cases among 30000 persons, 5 of them all that carry one variant; some controls carry the other.
n <- 30000; i <- seq_len(n) - 1
z <- cbind(age = sin(i), sex = i %% 2); y <- as.numeric(i %% 17 == 0 & i < 12 * 17)
nearly <- tested(cbind(rs_a = as.numeric(y == 1 & i < 5 * 17), rs_b = as.numeric(i %% 5 == 3 & i < 4500)), y, z)
nearly <- c(list(id = c("rs_a", "rs_b")), nearly)

version <- system2("plink2", "--version", stdout = TRUE)[1]
write(toJSON(list(r = R.version.string, plink2 = version, toy = toy, rare = few, nearly = nearly), digits = 17, auto_unbox = TRUE, pretty = FALSE), args[2])
