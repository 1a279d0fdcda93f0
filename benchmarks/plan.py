"""Which cases are measured."""

CASES = [
    "fgsm",
    "pgd10",
    "pgd40",
    "cw",
    "at",
    "atblr",
    "resnet-pgd10",
    "resnet-at",
    "resnet-atblr",
    "worst",
    "autoattack",
]
QUICK = ["fgsm", "pgd10", "at", "atblr"]
MEMORY = ["pgd10", "resnet-pgd10"]

# Forward passes' worth of work of a case with fixed passes: a gradient in the image costs another pass, one in the
# weights a third.
PASSES = {
    "fgsm": 1 + 2 + 1,
    "pgd10": 1 + 20 + 1,
    "pgd40": 1 + 80 + 1,
    "cw": 60,
    "at": 20 + 6,
    "atblr": 20 + 6,
    "resnet-pgd10": 1 + 20 + 1,
    "resnet-at": 20 + 6,
    "resnet-atblr": 20 + 6,
}
