"""
A table with gaps
=================

Rows of a table are functions of features of its columns. ``MatrixCompletion`` regresses each row on its observed
entries with the kernel of an infinitely wide fully connected network. This page completes a table, checks the result on
entries that were left out, and predicts a column that nobody has measured.
"""

# %%
# The table
# ---------
# scikit-learn's wine data: 178 wines, 13 chemical measurements. We hide a fifth of the entries.
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import sklearn.datasets

import torch_cntk as tc

wine = sklearn.datasets.load_wine(as_frame=True).data
scaled = (wine - wine.mean()) / wine.std()
table = scaled.T  # 13 measurements x 178 wines: rows are functions of the wines
hidden = np.random.default_rng(0).random(table.shape) < 0.2
gaps = table.mask(hidden)
gaps.iloc[:4, :4]

# %%
# Complete it
# -----------
# The features of a wine are its other measurements. Here we take the means where they are missing, as a first guess.
features = gaps.apply(lambda row: row.fillna(row.mean()), axis=1).T
model = tc.MatrixCompletion(hidden_layers=1, ridge="cv")
model.fit(gaps, features=features)
filled = model.predict()
filled.iloc[:4, :4]

# %%
# Labels come back as they were, and observed entries are untouched:
assert filled.index.equals(table.index)
assert filled.columns.equals(table.columns)

# %%
# Is it any good?
# ---------------
# We hid the entries ourselves, so we can look. The standard deviation of each measurement is 1 here.
truth, found = table.to_numpy()[hidden], filled.to_numpy()[hidden]
print(f"error {np.sqrt(np.mean((truth - found) ** 2)):.3f}; of the row means {np.sqrt(np.mean(truth**2)):.3f}")
figure, axis = plt.subplots(figsize=(4, 4), layout="constrained")
axis.scatter(truth, found, s=6)
axis.axline((0, 0), slope=1, color="black", linewidth=0.8)
axis.set(xlabel="hidden entry", ylabel="estimate")

# %%
# Without the truth, leave each observed entry out in turn: in closed form, at no further cost.
print(f"R^2 of leaving entries out: {model.score(gaps):.3f}")

# %%
# A column that was not there
# ---------------------------
# Whoever has features has a prediction, also a wine that was not in the table.
new = pd.DataFrame(features.iloc[:2].to_numpy() * 1.1, index=["a new wine", "another"], columns=features.columns)
print(model.predict(features=new).round(2).iloc[:3])
