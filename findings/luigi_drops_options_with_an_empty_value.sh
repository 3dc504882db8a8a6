#!/usr/bin/env bash
# luigi 3.8.1 drops a command line option whose value is the empty string: the default is taken without a word.
#
# `--roi "$ROI"` with ROI not set is what a shell script sends by mistake. One would expect the empty string, or an
# error; the task runs with the parameter's default instead, and exits with 0.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet "luigi==3.8.1"
cd "$work"
cat > job.py <<'PYTHON'
import luigi


class Cut(luigi.Task):
    region = luigi.Parameter(default="whole frame")

    def output(self):
        return luigi.LocalTarget("seen.txt")

    def run(self):
        with self.output().open("w") as file:
            file.write(self.region)
PYTHON
PYTHONPATH=. "$work/env/bin/luigi" --module job Cut --local-scheduler --region "" >/dev/null 2>&1
seen=$(cat seen.txt)
echo "luigi 3.8.1, --region '': the task saw '$seen', exit code 0"
test "$seen" = "whole frame"
