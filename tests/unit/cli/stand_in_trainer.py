"""A process that behaves like the trainer towards its parent, without training: `stand_in_trainer.py MODE prepare|train|lr-range --config FILE …`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path


def main(mode: str, kind: str, config_path: str) -> int:
    config = json.loads(Path(config_path).read_text())
    folder = Path(config["runFolder"])
    identity = {"job": config["job"]["name"], **{name: config[name] for name in ("configHash", "threads", "spec")}}
    (folder / "run.json").write_text(json.dumps(identity))
    parent = os.getppid()

    def report(**fields: object) -> None:
        os.write(int(os.environ["FINETUNE_PROGRESS_FD"]), (json.dumps(fields) + "\n").encode())

    def end(outcome: str, code: int, **fields: object) -> int:
        (folder / "result.json").write_text(json.dumps({"outcome": outcome, "exitCode": code, **fields}))
        return code

    def succeed(verdict: str = "Passed") -> int:
        if kind == "prepare":
            return end("Succeeded", 0)
        if kind == "lr-range":
            rising = {"rates": [1e-5, 1e-4], "losses": [5.0, 4.0], "smoothed": [5.0, 4.0]}
            found = {"steepest": 2e-5, "safe": 1e-5, "diverged": 1e-4, "declared": 1e-4}
            (folder / "lr-range.json").write_text(json.dumps({"stage": "domain", "asked": sys.argv[5:], **found, **rising}))
            return end("Succeeded", 0)
        stages = [stage["name"] for stage in config["spec"]["stages"]]
        done = [{"status": {"name": name, "phase": "Succeeded"}, "steps": 40} for name in stages]
        scores = [{"stage": name, "value": 4.0 - index, "low": 3.9 - index, "high": 4.1 - index} for index, name in enumerate(stages)]
        evaluation = [{"suite": "words", "metric": "perplexity", "baseline": 5.5, "stages": scores, "gate": verdict}]
        (folder / "evaluation").mkdir(exist_ok=True)
        for point, text in (("base", "what?"), (f"{len(stages) - 1}-{stages[-1]}", "a large bird")):
            sample = {"row": "r1", "prompt": "Define: emu", "reference": "a bird", "completion": text}
            samples = {"point": point, "suite": "words", "maxNewTokens": 8, "samples": [sample]}
            (folder / "evaluation" / f"samples-{point}.json").write_text(json.dumps(samples))
        if verdict == "Failed":
            return end(
                "Failed",
                22,
                reason="GateFailed",
                stage="task",
                message="perplexity 3.0 against 5.5",
                hint="Train more.",
                evaluation=evaluation,
            )
        adapter = {"kind": "adapter", "uri": f"file://{folder}/artifacts/adapter", "sha256": "0" * 64, "bytes": 4096}
        return end("Succeeded", 0, stages=done, evaluation=evaluation, artifacts=[adapter])

    def wait_for_sigterm(*, interrupts: int, answer: bool) -> int:
        """Have the parent interrupted once it listens, as Ctrl-C in its terminal would."""

        if answer:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # kept until it is asked for, however late that is
        else:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        report(activity="train", stage="domain", done=3, total=40, percent=10)
        os.kill(parent, signal.SIGINT)
        while not answer:
            signal.pause()
        for _ in range(interrupts):
            signal.sigwait({signal.SIGTERM})
            if interrupts > 1:
                os.kill(parent, signal.SIGINT)
        return end("Stopped", 75, reason="Stopped", stage="domain", step=4, message="saved at step 4")

    match mode:
        case "succeeds":
            report(activity=kind, stage=None if kind == "prepare" else "domain", done=1, total=2, percent=50, loss=0.5)
            report(activity=kind, message="checkpoint 40 saved")
            return succeed()
        case "garbage":
            os.write(
                int(os.environ["FINETUNE_PROGRESS_FD"]),
                b'\xff\xfe\x00{"activity": "dance"}\n{"activity": 3}\n\n[]\nnull\n{"activity": "train", "done"',
            )
            os.write(
                int(os.environ["FINETUNE_PROGRESS_FD"]), b': 7}\n{"activity": "train", "message": "still here"}\nno newline at the end'
            )
            return succeed()
        case "closes-pipe":
            os.close(int(os.environ["FINETUNE_PROGRESS_FD"]))
            return succeed()
        case "leaves-child":
            descriptor = int(os.environ["FINETUNE_PROGRESS_FD"])
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], pass_fds=(descriptor,))
            (folder / f"child-{kind}").write_text(str(child.pid))
            return succeed()
        case "bad-data":
            return end("Failed", 11, reason="DataInvalid", stage="task", message="file://a.jsonl line 3: no JSON", hint="Correct the rows.")
        case "misses-gate":
            return succeed(verdict="Failed")
        case "crashes":
            print("Traceback (most recent call last):\nRuntimeError: boom", file=sys.stderr)
            return 1
        case "cannot-write":
            print("StorageFull no space is left on the device", file=sys.stderr)
            return 30
        case "ends-without-result":
            return 0
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "segfaults":
            print("about to fall over", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGSEGV)
        case "saves-on-sigterm":
            return wait_for_sigterm(interrupts=1, answer=True)
        case "dies-of-sigterm":
            return wait_for_sigterm(interrupts=1, answer=False)
        case "hangs-after-sigterm":
            return wait_for_sigterm(interrupts=2, answer=True)
        case "stopped-in-prepare":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.kill(parent, signal.SIGINT)
            return succeed()
    raise AssertionError(mode)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[4]))
