"""Statistics of robustness: accuracies with intervals, paired tests, acceptance sampling."""
