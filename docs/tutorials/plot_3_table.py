"""
A table with gaps
=================

A fifth of a table is missing. We complete it, see what can be said about the error without knowing the truth, and
compare with the truth, which we kept.
"""

# %%
# The table
# ---------
# scikit-learn's wine data: 178 wines, 13 chemical measurements, each with a standard deviation of 1.
import matplotlib.pyplot as plt
import numpy as np
import sklearn.datasets

import torch_cntk as tc

wine = sklearn.datasets.load_wine(as_frame=True).data.iloc[::2]
table = (wine - wine.mean()) / wine.std()
hidden = np.random.default_rng(0).random(table.shape) < 0.2
gaps = table.mask(hidden)
print(gaps.iloc[:4, :4].round(2))

# %%
# Complete it
# -----------
# Without further knowledge, rows and columns describe each other. Which way serves this table is chosen by leaving
# entries out.
model = tc.MatrixCompletion().fit(gaps)
filled = model.predict()
print(filled.iloc[:4, :4].round(2))

# %%
# Labels come back as they were, and observed entries are untouched:
assert filled.index.equals(table.index)
assert filled.columns.equals(table.columns)
assert np.array_equal(filled.to_numpy()[~hidden], table.to_numpy()[~hidden])

# %%
# Is it any good?
# ---------------
# The report leaves out observed entries and fills them, by this completion and by simple other ones. Its last sentence
# says what to trust.
print(model.report())

# %%
# How sure is it?
# ---------------
# Each estimate has a standard deviation. We hid the entries ourselves, so we can look whether it holds: about 90 % of
# them should lie within 1.64 standard deviations.
mean, std = model.predict(return_std=True)
truth, found, spread = (x.to_numpy()[hidden] for x in (table, mean, std))
errors = [float(np.sqrt(np.mean((truth - estimate) ** 2))) for estimate in (found, 0)]
print(f"root mean square error {errors[0]:.2f}; of the columns' means, {errors[1]:.2f}")
print(f"within 1.64 standard deviations: {np.mean(np.abs(truth - found) < 1.64 * spread):.0%}")
figure, axis = plt.subplots(figsize=(4.5, 4), layout="constrained")
axis.errorbar(truth, found, yerr=spread, fmt=".", elinewidth=0.5)
axis.axline((0, 0), slope=1, color="black", linewidth=0.8)
axis.set(xlabel="hidden entry", ylabel="estimate and its standard deviation")

# %%
# From the command line
# ---------------------
# The same from file to file, with labels, types and the way of writing numbers kept::
#
#     torch-cntk complete table.csv -o filled.csv
#
# If you know something about the columns (or rows), pass it as ``features=``: columns without a single observed entry
# are then predicted as well. See :doc:`/tables`.
