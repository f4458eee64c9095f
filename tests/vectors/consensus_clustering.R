# k-means and consensus of bladder expression cohorts.   Rscript tests/vectors/consensus_clustering.R SHARED_DATA OUT.json
# OUT.json holds what is public beforehand, as the federation chose it: who is drawn in each resampling (persons
# in the order of the cohorts) and where each k-means starts, in deviations of standardised features. See given()
# in tests/analysis/methods/test_consensus_clustering.py. The judge takes these, and does the rest by itself.
suppressMessages(library(jsonlite))
args <- commandArgs(trailingOnly = TRUE)
cohorts <- c("GSE37317", "GSE89", "PMID17099711.GPL91")
read <- function(name) {
  at <- file.path(args[1], "bladder-expression", name)
  x <- as.matrix(read.csv(paste0(at, ".expr.csv.gz"), row.names = 1, check.names = FALSE))
  p <- read.csv(paste0(at, ".pheno.csv"))
  keep <- p$summarystage %in% c("invasive", "superficial")
  list(x = x[complete.cases(x), keep], stage = p$summarystage[keep])
}
sets <- lapply(cohorts, read)
genes <- sort(Reduce(intersect, lapply(sets, function(s) rownames(s$x))), method = "radix")
genes <- genes[seq(1, length(genes), by = 10)]
whole <- lapply(sets, function(s) t(s$x[genes, ]))
top <- function(x, n) sort(order(-apply(x, 2, var))[1:n])
rand <- function(t) { # Hubert and Arabie's index
  n <- sum(t); both <- sum(choose(t, 2)); r <- sum(choose(rowSums(t), 2)); c <- sum(choose(colSums(t), 2))
  e <- r * c / choose(n, 2); if ((r + c) / 2 == e) 1 else (both - e) / ((r + c) / 2 - e)
}
# Lloyd's steps written out: a cluster that nobody is nearest to is put a thousandth of the way from the centroid
# with the largest sum of squares towards where it was. Where no cluster is ever lost this is R's own kmeans.
lloyd <- function(x, start) {
  s <- start; lost <- FALSE; before <- 0
  repeat {
    d <- sapply(1:nrow(s), function(c) rowSums(sweep(x, 2, s[c, ])^2)); at <- max.col(-d, "first")
    size <- tabulate(at, nrow(s)); new <- s
    for (c in which(size > 0)) new[c, ] <- colMeans(x[at == c, , drop = FALSE])
    w <- sapply(1:nrow(s), function(c) sum(d[at == c, c])); big <- which.max(w)
    for (c in which(size == 0)) { lost <- TRUE; new[c, ] <- new[big, ] + 1e-3 * (s[c, ] - new[big, ]) }
    if (identical(at, before)) break
    before <- at; s <- new
  }
  mean <- colMeans(x)
  f <- list(cluster = at, centers = s, size = size, withinss = w, tot.withinss = sum(w), betweenss = sum(size * colSums((t(s) - mean)^2)), totss = sum(sweep(x, 2, mean)^2))
  if (lost) return(f)
  r <- kmeans(x, centers = start, algorithm = "Lloyd", iter.max = 200)
  stopifnot(identical(unname(r$cluster), f$cluster), all.equal(unname(r$centers), f$centers, tolerance = 1e-12), all.equal(r$withinss, w, tolerance = 1e-12))
  r
}
fit <- function(x, starts) { # the best of several starts
  all <- Filter(function(f) all(f$size > 0), lapply(starts, function(s) lloyd(x, s)))
  all[[which.min(sapply(all, function(f) f$tot.withinss))]]
}
cluster <- function(x, site, given, stage) { # x: persons by features, standardised
  starts <- lapply(given$starts, function(byk) lapply(byk, function(own) lapply(own, function(s) matrix(unlist(s), ncol = ncol(x), byrow = TRUE))))
  drawn <- sapply(given$drawn, function(s) strsplit(s, "")[[1]] == "1")
  n <- nrow(x); B <- ncol(drawn); before <- NA
  lapply(names(starts), function(name) {
    k <- as.integer(name)
    main <- fit(x, starts[[name]][[1]])
    order <- do.call(order, c(list(-main$size), as.data.frame(main$centers))); own <- match(main$cluster, order)
    label <- matrix(NA, n, B)
    for (b in 1:B) label[drawn[, b], b] <- fit(x[drawn[, b], ], starts[[name]][[b + 1]])$cluster
    same <- both <- matrix(0, n, n)
    for (b in 1:B) { d <- which(drawn[, b]); both[d, d] <- both[d, d] + 1; same[d, d] <- same[d, d] + outer(label[d, b], label[d, b], "==") }
    # consensus of the pairs of each site, each site weighing as many as its persons
    cdf <- rep(0, 101)
    for (s in unique(site)) { at <- which(site == s); up <- upper.tri(diag(length(at)))
      m <- (same[at, at] / both[at, at])[up]; m <- m[!is.na(m)]
      cdf <- cdf + sapply(0:100, function(e) mean(m <= e / 100 + 1e-9)) * length(at) / n }
    area <- sum(cdf[-1]) / 100
    delta <- if (is.na(before)) area else (area - before) / before
    before <<- area
    kept <- sapply(1:k, function(c) { at <- which(own == c); up <- upper.tri(diag(length(at))); sum(same[at, at][up]) / sum(both[at, at][up]) })
    agree <- mean(sapply(1:B, function(b) rand(table(label[drawn[, b], b], own[drawn[, b]]))))
    list(k = k, size = main$size[order], withinss = main$withinss[order], share = main$betweenss / main$totss, centers = unname(main$centers[order, ]),
         cdf = cdf, area = area, delta = delta, pac = cdf[91] - cdf[11], consensus = kept, agreement = agree, stage = unname(unclass(table(stage, own))))
  })
}
out <- fromJSON(args[2], simplifyVector = FALSE)
# The cohorts as sites, each centred by itself, features of unit variance.
x <- do.call(rbind, lapply(whole, function(m) scale(m, scale = FALSE)))
at <- top(x, 40); x <- x[, at]; deviation <- apply(x, 2, sd); x <- sweep(x, 2, deviation, "/")
site <- rep(cohorts, sapply(whole, nrow)); stage <- unlist(lapply(sets, `[[`, "stage"))
out$cohorts <- list(given = out$cohorts$given, features = genes[at], deviation = unname(deviation), found = cluster(x, site, out$cohorts$given, stage))
# One cohort by itself, features as they are: Monti's consensus over all pairs.
x <- whole[[2]]; at <- top(x, 40); x <- sweep(x[, at], 2, colMeans(x[, at]))
out$one <- list(given = out$one$given, features = genes[at], mean = unname(colMeans(whole[[2]][, at])), found = cluster(x, rep(1, nrow(x)), out$one$given, sets[[2]]$stage))
write(toJSON(out, digits = 15, auto_unbox = TRUE), args[2])
