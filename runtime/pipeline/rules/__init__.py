"""Decision rules: from the similarities of both senses to scores and a decision (docs/method.md, Decision rules).

Pure functions. A rule sees the seconds of one buffer, in a stream the last ten and in an evaluation a clip; that is its
causal form: a second is decided with what the buffer holds once its lag is over, and nothing is kept between buffers.
"""
