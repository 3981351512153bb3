"""Frames of a stream that comes packet by packet: those that can be trusted, as those of a file (``trust``)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import suppress

import av
from av.sidedata.sidedata import Type
from av.video.frame import PictureType

from evl.video.decode.decoders import decode_packet, decoder_of, like, marks_keys
from evl.video.decode.index import ONE_PACKET_ONE_PICTURE, shows_picture
from evl.video.decode.packets import PacketOrder
from evl.video.decode.trust import MOST_HELD, HeldFrames


class LiveFrames(HeldFrames):
    """``decode(packet)`` gives the frames that can be trusted now, in the order in which they are shown.

    From the first packet on that is broken, lost or without its frame, frames are left out up to the next key packet,
    with which the decoder begins anew: broken packets change what it makes of later ones. ``left_out`` is the number of
    these frames. Packets are known again by their times; where these are missing or repeat, or where
    packets are no pictures, a frame waits for none, and only what the decoder and the packets say is heard.
    """

    def __init__(self, container: av.container.InputContainer, stream: av.VideoStream):
        super().__init__()
        self.left_out = 0
        self._container, self._stream, self._order = container, stream, PacketOrder(stream)
        self._decoder: av.VideoCodecContext | None = None
        self._codec = stream.codec_context.name
        self._has_times = self._codec in ONE_PACKET_ONE_PICTURE
        self._is_turned = False
        self._is_certain, self._misses = False, 0  # whether all packets of some group had their frames
        self._place = self._key = -1  # of the newest packet, and of the newest key packet
        self._key_time: int | None = None
        self._starts_at: int | None = None  # the time of the key packet with which the decoder began, until then
        self._places: dict[int, int] = {}  # time -> packet, of frames that have not come
        self._broken: int | None = None  # the first broken packet since the last key frame

    def decode(self, packet: av.Packet) -> Iterator[av.VideoFrame]:
        self._place += 1
        is_first, is_key = self._decoder is None, packet.is_keyframe and self._order.is_key(packet)
        if is_first:
            self._decoder = decoder_of(self._container, self._stream, packet)
        if is_key:
            begins = is_first or self._broken is not None
            if self._broken is not None:
                yield from self.end()
                self._begin_anew()
            self._key, self._key_time = self._place, packet.pts
            self._starts_at = packet.pts if begins else self._starts_at
        self._see(packet, is_inside=is_first and not is_key)
        try:
            frames = decode_packet(self._decoder, packet)
        except av.error.FFmpegError:
            self._doubt(self._place)
            self.awaited.discard(self._places.pop(packet.pts, None))
            self.left_out += 1
            return
        for frame in frames:
            yield from self._returned(frame)

    def end(self) -> Iterator[av.VideoFrame]:
        """The last frames."""
        with suppress(av.error.FFmpegError):
            for frame in self._decoder.decode(None) if self._decoder is not None else ():
                yield from self._returned(frame)
        yield from self._end_group(self._place + 1)

    def _begin_anew(self) -> None:
        """libav's decoder of H.264 keeps something of broken packets when it is flushed; a new one has no rotation."""
        if self._codec == "h264" and not self._is_turned:
            self._decoder = like(self._decoder, "h264")
        else:
            self._decoder.flush_buffers()

    def _see(self, packet: av.Packet, *, is_inside: bool) -> None:
        """Takes in what a packet says before it is decoded. ``is_inside``: the stream begins with it, between two key
        frames; the decoders of most codecs without times wait for one by themselves."""
        if self._order.see(packet)[1] or packet.is_corrupt or (is_inside and self._has_times):
            self._doubt(self._place)
        if packet.pts is None or packet.pts in self._places:
            self._forget_times()
        if self._has_times and shows_picture(self._codec, packet):
            # what is shown before a key frame but stored after it may need frames that were not decoded
            leads = self._key_time is None or packet.pts < self._key_time
            if not leads or self._key > 0:
                self._places[packet.pts] = self._place
            if not leads:
                self.awaited.add(self._place)

    def _returned(self, frame: av.VideoFrame) -> Iterator[av.VideoFrame]:
        self._is_turned = Type.DISPLAYMATRIX in frame.side_data
        place = self._places.pop(frame.pts, None)
        if marks_keys(self._decoder):
            is_key = frame.key_frame and frame.pict_type == PictureType.I
            place = place if place is not None else self._key if is_key else self._place
        else:  # it gives each frame at once
            place, is_key = self._place, self._place == self._key
        if self._starts_at is not None:
            if frame.pts is not None and frame.pts < self._starts_at:
                self.left_out += self._key > 0
                return
            self._starts_at = None
        if is_key and self._broken is None:
            yield from self._end_group(place)
        self.awaited.discard(place)
        if frame.is_corrupt:
            self._doubt(place)
        if self._broken is not None and place >= self._broken:
            self.left_out += 1
            return
        self._held.append((place, frame))
        if len(self._held) > MOST_HELD and self._is_damage():
            self._doubt(min(self.awaited))
        yield from self._trusted()

    def _end_group(self, key: int) -> Iterator[av.VideoFrame]:
        """What can be trusted of the frames before the key frame of packet ``key``, which has come."""
        lost = {place for place in self.awaited if place < key}
        if lost and self._is_damage():
            self._doubt(min(lost))
        self.left_out += sum(place < key for place in self._places.values())
        self._is_certain |= self._has_times and not lost and self._broken is None and key > 0
        self.awaited -= lost
        self._places = {time: place for time, place in self._places.items() if place >= key}
        self._broken = None
        held, self._held = self._held, deque()
        yield from (frame for _, frame in held)

    def _is_damage(self) -> bool:
        """Whether a frame that does not come is damage. If the first two groups both lack one, packets are no pictures
        in this stream."""
        if self._broken is None and not self._is_certain:
            self._misses += 1
            if self._misses > 1:
                self._forget_times()
        return self._has_times

    def _forget_times(self) -> None:
        self._has_times = False
        self.awaited.clear()
        self._places.clear()

    def _doubt(self, place: int) -> None:
        """Leaves out the frames from a packet on."""
        self._broken = place if self._broken is None else min(place, self._broken)
        kept = [one for one in self._held if one[0] < self._broken]
        self.left_out += len(self._held) - len(kept)
        self._held = deque(kept)
