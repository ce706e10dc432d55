"""Tokens of a wave that comes in chunks."""

from __future__ import annotations

import torch
from torch import Tensor

from mmattn.adapters.audio import AudioFrames


class AudioStream:
    """Follows one wave chunk by chunk; together its tokens are those of the whole wave.

    A token comes as soon as the samples that it depends on are there: half a window and the frames that the
    stem looks ahead (``adapter.stem.look_ahead``) behind its first frame. What is kept between chunks does not grow.

    Args:
        adapter: with ``normalize="global"``, since a clip's own mean is known only at its end.

    Raises:
        ValueError: the adapter normalises by the clip, or nothing is known yet to normalise by.

    Example:
        >>> adapter = AudioFrames(8, sample_rate=4000, n_mels=20, normalize="global")
        >>> adapter.fit([torch.randn(4000)])
        >>> stream = AudioStream(adapter)
        >>> [len(stream.push(torch.randn(400))) for _ in range(4)], len(stream.finish())
        ([2, 2, 3, 2], 2)
    """

    def __init__(self, adapter: AudioFrames) -> None:
        if adapter.normalize != "global":
            raise ValueError(
                "a stream needs an adapter with normalize='global', a clip's mean is known at its end: "
                f"got {adapter.normalize!r}"
            )
        adapter.normalized(adapter.mean[None])  # says what is missing
        self.adapter = adapter
        # samples from the start of the next window on, at first half a window of zeros
        self._samples = adapter.mean.new_zeros(adapter.n_fft // 2)
        self._skip = 0  # samples to come before the next window, where the step is wider than the window
        self._waiting = adapter.stem.start()
        self._received = self._frames = 0
        self._finished = False

    def push(self, samples: Tensor) -> Tensor:
        """Tokens ``[n, D]`` that the next samples ``[S]`` complete; n may be 0.

        Raises:
            ValueError: the samples are not ``[S]``, or the stream is finished.
            TypeError: they are not floating-point.
        """
        if samples.ndim != 1:
            raise ValueError(f"samples must be [S]: got shape {list(samples.shape)}")
        if not samples.is_floating_point():
            raise TypeError(f"samples must be floating-point in [-1, 1]: got {samples.dtype}")
        self._check_open()
        self._received += len(samples)
        return self._tokens(self._windows(samples), last=False)

    def finish(self) -> Tensor:
        """The tokens ``[n, D]`` that waited for more samples; ends the stream.

        Raises:
            ValueError: the stream is finished already.
        """
        self._check_open()
        self._finished = True
        wanted = self.adapter.num_frames(self._received) - self._frames if self._received else 0
        behind = self._samples.new_zeros(self.adapter.n_fft + self.adapter.hop_length)
        return self._tokens(self._windows(behind)[:wanted], last=True)

    def _check_open(self) -> None:
        if self._finished:
            raise ValueError("a finished stream takes no more samples: begin another")

    def _windows(self, samples: Tensor) -> Tensor:
        """Log-mel values of the windows that are complete now, ``[n, n_mels]``."""
        adapter, line = self.adapter, torch.cat([self._samples, samples.to(self._samples)])
        cut = min(self._skip, len(line))
        line, self._skip = line[cut:], self._skip - cut
        count = max((len(line) - adapter.n_fft) // adapter.hop_length + 1, 0)
        done = count * adapter.hop_length
        self._samples = line[done:].clone()
        self._skip += max(done - len(line), 0)
        self._frames += count
        if not count:
            return line.new_zeros(0, len(adapter.mean))
        return adapter.log_mel(line[: (count - 1) * adapter.hop_length + adapter.n_fft])

    def _tokens(self, values: Tensor, last: bool) -> Tensor:
        return self.adapter.stem.step(self.adapter.normalized(values), self._waiting, last)
