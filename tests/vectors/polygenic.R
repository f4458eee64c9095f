# What the polygenic scores of genetics.json say of the traits.   Rscript tests/vectors/polygenic.R SHARED_DATA tests/vectors/genetics.json OUT.json
suppressMessages(library(jsonlite))
args <- commandArgs(trailingOnly = TRUE)
at <- file.path(args[1], "gwas-toy/regenie")
g <- fromJSON(args[2])
fam <- read.table(file.path(at, "example.fam"))
own <- function(name) { d <- read.table(file.path(at, name), header = TRUE); d[match(paste(fam$V1, fam$V2), paste(d$FID, d$IID)), -(1:2)] }
d <- data.frame(y = own("phenotype.txt")$Y1, z = own("phenotype_bin.txt")$Y1, own("covariates.txt"), score = g$prs$scores)
d$s <- (d$score - mean(d$score)) / sd(d$score)
ctl <- glm.control(epsilon = 1e-14, maxit = 100)
l0 <- lm(y ~ V1 + V2 + V3, d); l1 <- lm(y ~ V1 + V2 + V3 + s, d)
b0 <- glm(z ~ V1 + V2 + V3, binomial, d, control = ctl); b1 <- glm(z ~ V1 + V2 + V3 + s, binomial, d, control = ctl); b <- glm(z ~ 1, binomial, d, control = ctl)
nagelkerke <- function(m) { n <- nrow(d); l <- as.numeric(logLik(m)); k <- as.numeric(logLik(b)); (1 - exp(2 * (k - l) / n)) / (1 - exp(2 * k / n)) }
tenth <- findInterval(d$s, qnorm(1:9 / 10), left.open = TRUE) + 1
co <- function(m) list(coef = unname(coef(summary(m))[, 1]), se = unname(coef(summary(m))[, 2]), p = unname(coef(summary(m))[, 4]))
out <- list(mean = mean(d$score), sd = sd(d$score), linear = c(co(l1), with = summary(l1)$r.squared, without = summary(l0)$r.squared),
            logistic = c(co(b1), with = nagelkerke(b1), without = nagelkerke(b0), lr = b0$deviance - b1$deviance),
            persons = unname(c(table(factor(tenth, 1:10)))), means = unname(c(tapply(d$y, factor(tenth, 1:10), mean))))
write(toJSON(out, digits = 15, auto_unbox = TRUE, na = "null"), args[3])
