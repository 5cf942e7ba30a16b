"""The archive: what a camera or recording looked and sounded like, second by second (docs/archive.md).

::

    with ArchiveWriter(root, "yard", model_of(bundle)) as writer:      # a `ContextSecond` for each second
        writer.write(ContextSecond(utc_s=1_795_910_400, vision=vision, audio=audio))

    question = Question(texts=embed_phrases(bundle, ["chainsaw"]))
    for answer in Search(Archive(root), bundle, question).answers():   # newest day first, then the ranking of all
        print(answer.done, answer.days, [hit.score for hit in answer.hits])

`ArchiveSink` writes a session; `ContextVectors` makes its vectors. `scan` alone ranks seconds by
embeddings.
"""
