# Reference numbers for quantiles, rank_test, histogram and table_one. Run: Rscript ranks.R SHARED_DATA OUT.json
suppressMessages(library(jsonlite))
args <- commandArgs(trailingOnly = TRUE)
pbc <- read.csv(file.path(args[1], "survival-reference/pbc.csv"))
pbc$stage <- factor(pbc$stage)
probs <- c(0.05, 0.25, 0.5, 0.75, 0.95)
quant <- function(x) unname(quantile(x, probs, na.rm = TRUE, type = 7))
wx <- function(f, ...) { t <- wilcox.test(f, data = pbc, exact = FALSE, ...); list(statistic = unname(t$statistic), p = t$p.value) }
kw <- function(f) { t <- kruskal.test(f, data = pbc); list(statistic = unname(t$statistic), df = unname(t$parameter), p = t$p.value) }
smd <- function(x, g) { m <- tapply(x, g, mean, na.rm = TRUE); v <- tapply(x, g, var, na.rm = TRUE); unname((m[1] - m[2]) / sqrt(mean(v))) }
out <- list(
  r = R.version.string, probs = probs,
  quantiles = list(age = quant(pbc$age), bili = quant(pbc$bili), platelet = quant(pbc$platelet)),
  by_sex = list(f = quant(pbc$bili[pbc$sex == "f"]), m = quant(pbc$bili[pbc$sex == "m"])),
  wilcoxon = wx(bili ~ sex), plain = wx(bili ~ sex, correct = FALSE), kruskal = kw(albumin ~ stage),
  histogram = hist(pbc$age, breaks = seq(20, 80, 10), plot = FALSE, right = FALSE)$counts,
  table_one = list(
    age = list(mean = unname(tapply(pbc$age, pbc$sex, mean)), sd = unname(tapply(pbc$age, pbc$sex, sd)),
               p = oneway.test(age ~ sex, pbc)$p.value, smd = smd(pbc$age, pbc$sex)),
    stage = list(counts = unclass(table(pbc$sex, pbc$stage)), p = chisq.test(table(pbc$sex, pbc$stage), correct = FALSE)$p.value))
)
write(toJSON(out, digits = 17, auto_unbox = TRUE, pretty = TRUE), args[2])
