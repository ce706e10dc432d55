"""How verdicts come about, in words for the page."""

RULES = [
    (
        "A comparison is supported when its p-value after Holm's correction is below 0.05 and the estimate "
        "reaches the smallest effect of interest; it is not supported when the whole 95 % interval lies "
        "below that effect; in between it is inconclusive. Where the claim is that something costs less than "
        "a margin, that margin takes the place of no effect and of the smallest effect of interest; and what it is "
        "set beside has to be ahead of the linear model, since being no worse than what learned nothing says nothing."
    ),
    (
        "Holm's correction counts the primary comparisons of all claims and domains together, because a "
        "reader who looks for anything that holds looks at all of them: where nothing is true, at most 1 "
        "grid in 20 calls anything supported."
    ),
    (
        "A claim is supported in a domain when all of its primary comparisons are, not supported when at "
        "least one of them is not supported, and inconclusive otherwise. Over the domains the same rule "
        "holds: a claim is as good as its weakest domain."
    ),
    (
        "Seeds and test examples are both samples. The error over seeds is Student's t with one degree of "
        "freedom less than there are seeds, the error over examples comes from drawing them again, arms "
        "and seeds together. A spread over few seeds that came out smaller than is usual among comparisons "
        "of its kind is drawn towards theirs, one that came out larger is left. Where a run gives one "
        "number instead of answers one by one, the interval is about that test set. For timings the rounds "
        "take the place of seeds, and what they say is about the machine that ran them."
    ),
    (
        "The smallest detectable effect is what a grid of this size and spread would call supported in 8 "
        "of 10 repetitions. An inconclusive comparison below it says little about the claim and much about "
        "the size of the grid."
    ),
    "Secondary comparisons are shown with the same intervals, without correction and without weight.",
]
