"""The assets, one file each, in the order of a day: raw input, validated features, model, predictions; then others."""
