"""The tables and figures of the papers, one after another: what they say, what is measured here, and what holds.

`python -m benchmarks.papers table1 --data sets/` measures one; `benchmarks/PAPERS.md` is written from the results.
"""
