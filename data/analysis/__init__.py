"""What is made of metrics: regimes, claims and figures, from run folders alone, whatever network they are of.

    regimes.py    what a regime is, by metrics, and where the boundaries between regimes lie
    boundaries.py the rules of these boundaries, by numbers of runs, and how sure they are
    intervals.py  what runs say of means, trends and correlations: 95 % intervals, decisions by them
    study.py      the runs of one experiment, and values of their members
    series.py     the numbers behind each figure
    drawing.py    draws a figure of curves against the PLR from its numbers; drawing_other.py the others
    axes.py       what figures have in common; captions.py: row titles, and the small print
    learning_curves.py   numbers and drawing of learning curves, which are no figure of the paper
    search.py     which learning rates to run next to find the band of useful ones; search_commands.py: next-lr, band
    band.py       that band, and what is said of it
    figures.py    which figure shows what, of which networks
    criteria.py   what claims are made of: bounds, parts; evidence.py: what they are judged by
    claims.py     judges the claims of the paper, which claims_*.py hold

Nothing here loads weights, imports models or asks for a network by name: a run folder says what must be known of its
network (Run.network), such as its kind and when it has converged.
"""
