# Gene sets on given statistics.   Rscript tests/vectors/genesets.R OUT.json
suppressMessages({ library(limma); library(jsonlite) })
set.seed(5); t <- rnorm(200); names(t) <- sprintf("g%03d", 1:200); t[1:20] <- t[1:20] + 1
sets <- list(up = sprintf("g%03d", 1:20), mixed = sprintf("g%03d", seq(5, 195, 10)), few = c("g100", "g150"))
r <- cameraPR(t, sets, sort = FALSE)
write(toJSON(list(t = unname(t), sets = sets, genes = r$NGenes, direction = tolower(r$Direction), p = r$PValue, fdr = r$FDR), digits = 15, auto_unbox = TRUE), commandArgs(TRUE)[1])
