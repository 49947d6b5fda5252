"""The way from a Python function of one element to a checked formula, and on to kernels' text.

source.py finds a function's text. parse.py makes a formula of it, with the help of scope.py
(names), expressions.py, callees.py, vocabulary.py and logic.py; formula.py says what that is.
evaluate.py runs a formula on NumPy's arrays, generate.py writes it as text for Numba, and
modules.py makes a module of that text. files.py keeps text and what was compiled from it, in
the folder that folder.py judges. interrupts.py lets Ctrl-C wait while Numba works.
"""
