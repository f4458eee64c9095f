# Reference numbers for describe. Run: Rscript describe.R SHARED_DATA OUT.json
suppressMessages(library(jsonlite))
args <- commandArgs(trailingOnly = TRUE)
pbc <- read.csv(file.path(args[1], "survival-reference/pbc.csv"))
numbers <- c("time", "age", "bili", "chol", "albumin", "platelet", "protime")
out <- list(version = R.version.string, n = nrow(pbc), numbers = lapply(pbc[numbers], function(x)
  list(n = sum(!is.na(x)), missing = sum(is.na(x)), mean = mean(x, na.rm = TRUE), sd = sd(x, na.rm = TRUE))),
  sex = as.list(table(pbc$sex)))
write_json(out, args[2], digits = NA, auto_unbox = TRUE, pretty = TRUE)
