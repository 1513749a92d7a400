"""The estimators: scikit-learn's side of the house, one file for each."""
