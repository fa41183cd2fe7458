# SPDX-License-Identifier: Apache-2.0
"""Builds the presets of a run one after another, also while the tests of those before run: these
wait more than they compute, and what compiles behind them gives way (nice).
"""
import threading

from presets import Failed, build


class Builder:
    """Starts at once. What a build tells is kept until somebody waits for it."""

    def __init__(self, presets):
        self.presets = {preset.name: preset for preset in presets}
        self._ended = {name: threading.Event() for name in self.presets}
        self._failures = {}
        self._said = []
        self._newest = ("", "")
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        for preset in self.presets.values():
            try:
                build(preset, self)
            except Failed as failure:
                self._failures[preset.name] = (failure, self._said)
            self._said = []
            self._ended[preset.name].set()

    # A screen, to build().
    def progress(self, phase, text):
        self._newest = (phase, text)

    def say(self, text):
        self._said.append(text)

    def wait_for_end(self, name, screen):
        """Until the preset is built or not, or if it is none of those given."""
        while name in self._ended and not self._ended[name].wait(1):
            screen.progress(*self._newest)

    def wait(self, preset, screen):
        """Until the preset, one of those given, is built; Failed if that failed."""
        self.wait_for_end(preset.name, screen)
        if preset.name in self._failures:
            failure, said = self._failures[preset.name]
            for text in said:
                screen.say(text)
            raise failure
