# Reference numbers for anova, contingency and correlation. Run: Rscript tests.R SHARED_DATA OUT.json
suppressMessages(library(jsonlite))
args <- commandArgs(trailingOnly = TRUE)
pbc <- read.csv(file.path(args[1], "survival-reference/pbc.csv"))
lung <- read.csv(file.path(args[1], "survival-reference/lung.csv"))
t2 <- function(f, d, eq) {
  x <- t.test(f, data = d, var.equal = eq)
  list(t = unname(x$statistic), df = unname(x$parameter), p = x$p.value, lower = x$conf.int[1], upper = x$conf.int[2])
}
aov1 <- function(f, d, eq) {
  x <- oneway.test(f, data = d, var.equal = eq)
  list(f = unname(x$statistic), df = unname(x$parameter), p = x$p.value)
}
pbc$stage <- factor(pbc$stage)
fit <- function(x) list(statistic = unname(x$statistic), df = unname(x$parameter), p = x$p.value)
two <- table(pbc$sex, pbc$spiders)
f <- fisher.test(two)
# fisher.test searches its odds ratio and interval to 1e-4 only; the same equations, solved to the end.
tight <- function(x) {
  s <- max(0, sum(x[1, ]) - sum(x[, 2])):min(sum(x[1, ]), sum(x[, 1]))
  logs <- dhyper(s, sum(x[, 1]), sum(x[, 2]), sum(x[1, ]), log = TRUE)
  d <- function(t) { w <- logs + s * t; w <- exp(w - max(w)); w / sum(w) }
  root <- function(g) exp(uniroot(g, c(-60, 60), tol = 1e-14)$root)
  list(odds = root(function(t) sum(s * d(t)) - x[1, 1]),
       lower = root(function(t) sum(d(t)[s >= x[1, 1]]) - 0.025),
       upper = root(function(t) sum(d(t)[s <= x[1, 1]]) - 0.025))
}
exact <- tight(two)
stopifnot(abs(exact$odds / f$estimate - 1) < 1e-3, abs(exact$upper / f$conf.int[2] - 1) < 1e-3)
three <- table(pbc$stage, pbc$edema)
wide <- mantelhaen.test(table(pbc$edema, pbc$sex, pbc$spiders))
strata <- function(...) array(c(...), c(2, 2, length(c(...)) / 4))
close <- mantelhaen.test(strata(5, 6, 6, 7, 4, 3, 3, 3))
set.seed(1)
uneven <- data.frame(y = c(rnorm(20), 1e3 + 1e3 * rnorm(25), -1e4 + rnorm(30)), g = rep(c("a", "b", "c"), c(20, 25, 30)))
cmh <- mantelhaen.test(table(pbc$sex, pbc$spiders, pbc$stage))
numbers <- na.omit(lung[, c("age", "meal.cal", "wt.loss", "ph.karno")])
pca <- prcomp(numbers, scale. = TRUE)
ct <- cor.test(numbers$age, numbers$ph.karno)
out <- list(
  r = R.version.string,
  sex = list(student = t2(bili ~ sex, pbc, TRUE), welch = t2(bili ~ sex, pbc, FALSE)),
  stage = list(equal = aov1(albumin ~ stage, pbc, TRUE), unequal = aov1(albumin ~ stage, pbc, FALSE)),
  two = list(counts = unclass(two), plain = fit(chisq.test(two, correct = FALSE)), yates = fit(chisq.test(two)),
             fisher = c(list(p = f$p.value), exact)),
  three = fit(suppressWarnings(chisq.test(three))),
  cmh = c(fit(cmh), list(odds = unname(cmh$estimate), lower = cmh$conf.int[1], upper = cmh$conf.int[2])),
  wide = fit(wide), close = fit(close),
  uneven = list(y = uneven$y, g = uneven$g, equal = aov1(y ~ g, uneven, TRUE), unequal = aov1(y ~ g, uneven, FALSE),
                sd = as.numeric(tapply(uneven$y, uneven$g, sd))),
  correlation = list(r = unname(cor(numbers)), sd = unname(pca$sdev), n = nrow(numbers),
                     t = unname(ct$statistic), p = ct$p.value, lower = ct$conf.int[1], upper = ct$conf.int[2])
)
write(toJSON(out, digits = 17, auto_unbox = TRUE, pretty = TRUE), args[2])
