"""Several clients in one pass over the backbone that they share.

One step of some clients, in the order of the files:

1. ``engine``: each client has its ``ClientRun``; ``stacks`` holds the trees of all in one ``StackedClients``.
2. ``requests``: a client's objective is run with a ``RequestedLoss``. Where it needs the network, it is left by
   ``Unanswered``, which carries the ``Request``.
3. ``passes``: ``SharedPasses`` makes one batch of the requests of all clients and runs the task on it once.
4. ``folding``: meanwhile, the modules that train have another forward, which gives each row its client's parameters.
5. ``modules``: those forwards, for which ``RowLayout`` knows the rows of each client.
6. ``requests``: each client keeps its ``Answer`` among its ``Answers``; its objective is run again and comes further.
7. ``engine``: the sum of all objectives goes backward, and ``stacks`` clips and steps, each client by itself.

``check`` finds out once whether a network allows this, ``compiled`` may compile step 3, and ``evaluation`` takes scores
and losses of several models in the same passes.
"""
