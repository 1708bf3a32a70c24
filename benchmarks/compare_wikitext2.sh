#!/bin/sh
# Six methods on WikiText-2 at equal tokens: BPE of 4,096, 3.2M parameters, rows of 128 tokens, one thread.
#
#     benchmarks/compare_wikitext2.sh DATA_FOLDER [KEY=VALUE]...
#
# DATA_FOLDER holds train.txt.gz and valid.txt.gz. Stopped, it goes on where it was when the same line is typed again;
# the report is OUT/report.html. About 50 minutes of training and 20 of questions on one core that trains 4,000 tokens/s.
set -eu
data=${1:?name the folder with train.txt.gz and valid.txt.gz}
shift
export OMP_NUM_THREADS="${THREADS:-1}"
exec "${UNMASK:-unmask}" compare \
    --methods "${METHODS:-autoregressive,block:size=4,block:size=16,masked,sedd,continuous}" \
    --out "${OUT:-runs/wikitext2}" --device cpu \
    data.source="$data/train.txt.gz" data.valid="$data/valid.txt.gz" data.eos=false \
    tokenizer.vocab_size=4096 \
    model.width=192 model.layers=4 model.heads=4 model.hidden=448 model.context=128 \
    tokens="${TOKENS:-1400000}" train.batch=8 train.eval_draws=16 train.save_every=100 \
    passes='[1, 4, 8]' facts_tokens=100000 \
    "$@"
