// Weights of Sphinx's own search, but pages for users come before decisions and evidence.
var Scorer = {
  score: ([page, , , , score]) => (/^(decisions|evidence)\//.test(page) ? score / 4 : score),
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
