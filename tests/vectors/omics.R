# Reference numbers for limma, ComBat, quantiles, components, voom and the negative binomial. Run: Rscript omics.R SHARED_DATA OUT.json
suppressMessages({ library(jsonlite); library(limma); library(edgeR); library(sva) })
args <- commandArgs(trailingOnly = TRUE)
# Genes in byte order; the ones whose index from 0 is a multiple of ceil(G / 40) are written.
every <- function(n) seq(1, n, by = ceiling(n / 40))
cohorts <- c("GSE37317", "GSE89", "PMID17099711.GPL91")
read <- function(name) {
  at <- file.path(args[1], "bladder-expression", name)
  x <- as.matrix(read.csv(paste0(at, ".expr.csv.gz"), row.names = 1, check.names = FALSE))
  p <- read.csv(paste0(at, ".pheno.csv"))
  stopifnot(identical(colnames(x), p$sample))
  keep <- p$summarystage %in% c("invasive", "superficial")
  list(x = x[complete.cases(x), keep], cohort = rep(name, sum(keep)), invasive = as.integer(p$summarystage[keep] == "invasive"))
}
sets <- lapply(cohorts, read)
genes <- sort(Reduce(intersect, lapply(sets, function(s) rownames(s$x))), method = "radix")
x <- do.call(cbind, lapply(sets, function(s) s$x[genes, ]))
cohort <- factor(unlist(lapply(sets, `[[`, "cohort")), cohorts)
invasive <- unlist(lapply(sets, `[[`, "invasive"))
at <- every(length(genes))
v <- function(m) unname(as.numeric(m))
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
save <- function(out, file) {
  text <- toJSON(exactly(out), auto_unbox = TRUE, pretty = TRUE, digits = 17)
  write(gsub(", ", ",", gsub("\"#([^\"]*)\"", "\\1", text)), file)
}
# One coefficient of a moderated fit: the written genes, and totals over all genes.
table1 <- function(fit, coef, at) {
  p <- fit$p.value[, coef]
  q <- p.adjust(p, "BH")
  s0 <- fit$s2.prior
  list(logfc = v(fit$coefficients[at, coef]), se = v((fit$stdev.unscaled[, coef] * fit$sigma)[at]), t = v(fit$t[at, coef]),
       p = v(p[at]), b = v(fit$lods[at, coef]), q = v(q[at]), sigma = v(fit$sigma[at]), s2post = v(fit$s2.post[at]),
       average = v(fit$Amean[at]), df = fit$df.residual[1], d0 = fit$df.prior[1], dftotal = v(fit$df.total[1]),
       s0 = if (length(s0) > 1) v(s0[at]) else s0, var_prior = v(fit$var.prior[match(coef, colnames(fit$coefficients))]),
       fdr05 = sum(q < 0.05), sum_t = sum(fit$t[, coef]), sum_logp = sum(log(p)), sum_b = sum(fit$lods[, coef]))
}
design <- model.matrix(~ cohort + invasive)
plain <- lmFit(x, design)
fit <- eBayes(plain)
whole <- topTable(fit, coef = 2:4, number = Inf, sort.by = "none")
ftest <- list(f = v(whole$F[at]), p = v(whole$P.Value[at]), q = v(whole$adj.P.Val[at]), df1 = 3, sum_f = sum(whole$F), fdr05 = sum(whole$adj.P.Val < 0.05))

mod <- model.matrix(~ invasive)
combat <- function() suppressMessages(ComBat(x, batch = cohort, mod = mod, par.prior = TRUE))
adjusted <- combat()
# ComBat stops its iteration at a change of 1e-4, seen in positive shifts only; the same equations, solved to the end.
solve1 <- getFromNamespace("it.sol", "sva")
body(solve1) <- do.call(substitute, list(body(solve1), list(conv = quote((if (count < 500) -Inf else Inf)))))
assignInNamespace("it.sol", solve1, "sva")
ended <- combat()
few <- at[seq(1, length(at), by = 4)]
plainly <- removeBatchEffect(x, batch = cohort, design = mod)
normal <- normalizeQuantiles(x)
pca <- prcomp(t(x), center = TRUE, scale. = FALSE)
# What a study makes of harmonised values; from here on ComBat runs to the end.
means <- function(y) suppressMessages(ComBat(y, batch = cohort, mod = mod, mean.only = TRUE))
shares <- function(y) 1 - rowSums((y - t(apply(y, 1, ave, cohort)))^2) / rowSums((y - rowMeans(y))^2)
after <- function(y) {
  s <- shares(y)
  list(limma = table1(eBayes(lmFit(y, mod)), "invasive", at), sdev = prcomp(t(y))$sdev[1:5], share = v(s[at]), mean_share = mean(s))
}
# The same with gaps, and with a gene that does not vary in one cohort.
holed <- x
holed[(7 * (row(x) - 1) + 3 * (col(x) - 1)) %% 31 == 0] <- NA
flat <- x
flat[few[3], cohort == cohorts[2]] <- 7
held <- function(y) { part <- y[few, ]; v(part[!is.na(part)]) }
x_whole <- x
x <- holed
gaps <- list(combat = held(combat()), combat_means = held(means(holed)), quantile = held(normalizeQuantiles(holed)),
             batch = held(removeBatchEffect(holed, batch = cohort, design = mod)))
x <- flat
unmoved <- list(combat = held(combat()), combat_means = held(means(flat)))
x <- x_whole

samples <- read.csv(file.path(args[1], "synthetic-rnaseq/samples.csv"))
counts <- as.matrix(read.csv(file.path(args[1], "synthetic-rnaseq/counts.csv.gz"), row.names = 1))
stopifnot(identical(colnames(counts), samples$sample), !is.unsorted(rownames(counts)))
dge <- calcNormFactors(DGEList(counts), method = "upperquartile")
by <- model.matrix(~ site + group, samples)
weighed <- voom(dge, by, save.plot = TRUE)
vfit <- eBayes(lmFit(weighed, by))
vat <- every(nrow(counts))
nb <- glmFit(dge, by, dispersion = 0.1, prior.count = 0)
lrt <- glmLRT(nb, coef = "group")
# glmFit stops at 1e-6; R's own glm at the same dispersion, to the end.
offset <- log(dge$samples$lib.size * dge$samples$norm.factors)
one <- function(g) {
  run <- function(f) suppressWarnings(glm(f, family = MASS::negative.binomial(10), control = glm.control(epsilon = 1e-300, maxit = 60),
                                          data = data.frame(y = counts[g, ], samples, offset = offset)))
  full <- run(y ~ site + group + offset(offset))
  lr <- run(y ~ site + offset(offset))$deviance - full$deviance
  list(coef = v(coef(full)), deviance = full$deviance, lr = lr, p = pchisq(lr, 1, lower.tail = FALSE))
}
tight <- lapply(vat, one)
pick <- function(k) sapply(tight, `[[`, k)
stopifnot(max(abs(pick("lr") - lrt$table$LR[vat])) < 1e-3)

out <- list(
  r = R.version.string, limma = as.character(packageVersion("limma")), edger = as.character(packageVersion("edgeR")),
  sva = as.character(packageVersion("sva")),
  bladder = list(
    cohorts = cohorts, n_genes = length(genes), genes = genes[at], samples = colnames(x), cohort = as.integer(cohort) - 1L,
    invasive = invasive, sum = sum(x),
    limma = c(table1(fit, "invasive", at), list(f = ftest)), trend = table1(eBayes(plain, trend = TRUE), "invasive", at),
    combat = list(values = unname(adjusted[at, ]), sum = sum(adjusted), sum2 = sum(adjusted^2),
                  ended = list(genes = genes[few], values = unname(ended[few, ]), sum = sum(ended), sum2 = sum(ended^2),
                               apart = max(abs(ended - adjusted)))),
    remove = list(values = unname(plainly[at, ]), sum = sum(plainly), sum2 = sum(plainly^2)),
    quantile = list(values = unname(normal[at, ]), target = v(rowMeans(apply(x, 2, sort))[at]), sum = sum(normal), sum2 = sum(normal^2)),
    harmonised = list(before = v(shares(x)[at]), mean_before = mean(shares(x)), combat = after(ended), combat_means = after(means(x)),
                      batch = after(plainly), quantile = after(normal), means = unname(means(x)[few, ]), gaps = gaps, flat = unmoved),
    pca = list(sdev = pca$sdev[1:5], total = sum(pca$sdev^2), scores = unname(pca$x[, 1:5]), loadings = unname(pca$rotation[at, 1:5]))),
  rnaseq = list(
    n_genes = nrow(counts), genes = rownames(counts)[vat], factors = dge$samples$norm.factors, library = dge$samples$lib.size,
    voom = c(table1(vfit, "group", vat),
             list(weights = unname(weighed$weights[vat[1:5], ]), sum_weights = sum(weighed$weights), logcpm = unname(weighed$E[vat[1:5], ]),
                  x = v(weighed$voom.xy$x[vat]), y = v(weighed$voom.xy$y[vat]),
                  line_x = v(weighed$voom.line$x[vat]), line_y = v(weighed$voom.line$y[vat]))),
    nb = list(dispersion = 0.1, columns = colnames(by), edger = list(coef = unname(nb$coefficients[vat, ]), lr = lrt$table$LR[vat],
              p = lrt$table$PValue[vat], log2fc = lrt$table$logFC[vat], deviance = v(nb$deviance[vat]), sum_lr = sum(lrt$table$LR)),
              glm = list(coef = t(pick("coef")), deviance = pick("deviance"), lr = pick("lr"), p = pick("p"))))
)
save(out, args[2])
