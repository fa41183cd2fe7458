# SPDX-License-Identifier: Apache-2.0
cowire_bench(follow SOURCES follow_bench.cpp DEPENDS cowire::async)
cowire_bench(path_change SOURCES path_change_bench.cpp DEPENDS cowire::async)
cowire_bench(path_watch SOURCES path_watch_bench.cpp DEPENDS cowire::async)
cowire_bench(tracked_flows SOURCES tracked_flows_bench.cpp DEPENDS cowire::async)
cowire_bench(output_change SOURCES output_change_bench.cpp DEPENDS cowire::async)
