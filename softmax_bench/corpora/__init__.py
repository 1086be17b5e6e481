"""From text to vocabulary to token ids, and a synthetic language whose entropy is known."""

from softmax_bench.corpora.corpus import SYNTHETIC, Corpus, load_corpus
from softmax_bench.corpora.synthetic import SyntheticLanguage
from softmax_bench.corpora.vocabulary import END_OF_LINE, UNKNOWN, Vocabulary

__all__ = [
    "END_OF_LINE",
    "SYNTHETIC",
    "UNKNOWN",
    "Corpus",
    "SyntheticLanguage",
    "Vocabulary",
    "load_corpus",
]
