# Which mutated genes occur together in TCGA-BLCA.   Rscript tests/vectors/co_occurrence.R SHARED_DATA OUT.json
suppressMessages(library(jsonlite))
args <- commandArgs(trailingOnly = TRUE)
at <- file.path(args[1], "tcga-blca")
clinical <- read.csv(file.path(at, "clinical.csv")); m <- read.csv(file.path(at, "mutations.csv.gz"))
genes <- c("TP53", "MLL2", "KDM6A", "ARID1A", "PIK3CA", "RB1", "FGFR3", "STAG2", "ERBB2", "ELF3")
who <- intersect(clinical$patient, unique(m$patient))
x <- sapply(genes, function(g) as.integer(who %in% m$patient[m$gene == g]))
pairs <- list()
for (i in 1:9) for (j in (i + 1):10) { t <- table(factor(x[, i], 1:0), factor(x[, j], 1:0)); f <- fisher.test(t)
  pairs[[length(pairs) + 1]] <- list(first = genes[i], second = genes[j], both = t[1, 1], odds = t[1, 1] * t[2, 2] / (t[1, 2] * t[2, 1]), p = f$p.value) }
write(toJSON(list(genes = genes, n = length(who), carriers = unname(colSums(x)), pairs = pairs), digits = 15, auto_unbox = TRUE), args[2])
