"""
Runs a judge over many pairs of captures. The judge is a script that asks tshark about both captures
of one pair: tshark takes 0.3 s to start and a millisecond to read. Here one tshark reads all captures
that can be joined, and the judge, otherwise as it is, gets its answers from there.

    judge-many.py JUDGE <PAIRS >TOLD

PAIRS is a list of {"judge": [argument...], "packets": {path: count or null}}; a capture of null packets
is read alone. TOLD is the list of what the judge has printed. An answer for a joined capture is what
the same tshark says of these frames among those of the others: it differs only in what a protocol
above TCP or UDP learns from earlier packets of equal addresses.
"""
import contextlib
import io
import json
import subprocess
import sys
import tempfile

run_program = subprocess.run


class Joined:
    """Captures one after another in one file, and what tshark says of each."""

    def __init__(self, packets, folder):
        # Blocks that are no packets do not survive a copy: captures that have some are read alone.
        copies = {path: f"{folder}/{index}.pcapng" for index, path in enumerate(packets)}
        for path, copy in copies.items():
            run_program(["mergecap", "-w", copy, path], capture_output=True)
        told = run_program(["capinfos", "-c", "-M", "-T", "-r", *copies.values()], capture_output=True)
        copied = dict(line.split("\t") for line in told.stdout.decode().splitlines())
        self.counts = {path: n for path, n in packets.items() if copied.get(copies[path]) == str(n)}
        self.path = f"{folder}/joined.pcapng"
        joined = [copies[path] for path in self.counts]
        run_program(["mergecap", "-a", "-w", self.path, *joined], check=True)
        self.answers = {}

    def ask(self, command, path):
        """The answer to a command that reads the capture at `path`."""
        question = tuple(word for word in command if word != path)
        if question not in self.answers:
            self.answers[question] = self.split([self.path if word == path else word for word in command])
        return subprocess.CompletedProcess(command, 0, self.answers[question][path], "")

    def split(self, command):
        """tshark's lines, by capture, each numbered from 1."""
        assert command[command.index("-e") + 1] == "frame.number", "a line begins with its number"
        told = run_program(command, capture_output=True, text=True, errors="replace", check=True)
        lines = told.stdout.split("\n")[:-1]
        assert len(lines) == sum(self.counts.values()), f"{len(lines)} packets of the joined capture"
        answers, first = {}, 0
        for path, count in self.counts.items():
            rows = (line.partition("\t")[2] for line in lines[first : first + count])
            answers[path] = "".join(f"{number}\t{row}\n" for number, row in enumerate(rows, 1))
            first += count
        return answers


def judge(code, script, words):
    """What the script prints, run with these arguments."""
    sys.argv = [script, *words]
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        try:
            exec(code, {"__name__": "__main__"})
        except SystemExit:
            pass
    return told.getvalue()


def main(script):
    pairs = json.load(sys.stdin)
    packets = {path: count for pair in pairs for path, count in pair["packets"].items()}
    with open(script, encoding="utf-8") as file:
        code = compile(file.read(), script, "exec")
    with tempfile.TemporaryDirectory() as folder:
        joined = Joined(packets, folder)

        def run(command, **options):
            path = command[command.index("-r") + 1] if command[0] == "tshark" else ""
            return joined.ask(command, path) if path in joined.counts else run_program(command, **options)

        subprocess.run = run
        json.dump([judge(code, script, pair["judge"]) for pair in pairs], sys.stdout)


main(sys.argv[1])
