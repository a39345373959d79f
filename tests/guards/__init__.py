"""What applications, stores, queues and dashboards hold on to, and what therefore must not move.

Each guard compares what there is with what is written down here: names in tables of these modules, what users see in
``surface.json``, the store's keys and fields in ``redis_keys``. None of them imports a module that has no documented
path, so that modules can be moved. Where something is added, write it down: ``python -m tests.guards``.
"""
