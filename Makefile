# Builds, runs and tests the bench. `make help` lists what there is; README.md says what it is for.

VCPUS ?= 16
ARGS ?=
PREFIX ?= /usr/local
CARGO ?= cargo
CARGO_FLAGS ?= --locked

OUT := $(or $(CARGO_TARGET_DIR),target)
VMM := $(OUT)/release/vmm
GUEST := $(OUT)/guest.bin
EXPLORE := $(OUT)/explore.bin
LITMUS := $(OUT)/litmus.bin
LITMUS_EXPLORE := $(OUT)/litmus-explore.bin
SUM := $(OUT)/sum.bin
SUM_EXPLORE := $(OUT)/sum-explore.bin
LITMUS_CASE := $(OUT)/release/litmus-case
MANUAL := $(OUT)/manual
WHOLE := $(OUT)/whole
export SVM_DIR := $(OUT)/svm
INITRD := $(OUT)/initrd.gz
GDB := $(OUT)/gdb/gdb
SVM_VCPUS := 1,2,4,16
LONG_VCPUS := 1,2,3,16,64
# The portable code for shuttle, in builds of their own.
SHUTTLE := RUSTFLAGS='--cfg shuttle' CARGO_TARGET_DIR=$(OUT)/shuttle $(CARGO)
VERSUS := $(SHUTTLE) run $(CARGO_FLAGS) --release --package versus --
LOST_CALL := scenarios/explore/lost-call.case
# All that is not optimised is built with the whole workspace selected: the features of a dependency
# follow from what is selected, and with several selections it would be compiled several times.
TESTS := $(CARGO) test $(CARGO_FLAGS) --workspace
# What needs the products of `make build`, which tests/Cargo.toml keeps out of a plain `cargo test`,
# and so out of `--all-targets`.
OF_PRODUCTS := --test whole --test plants --test linux --test images --test install

.DEFAULT_GOAL := build
.PHONY: help build vmm manual examples guest images explore-images c-images c-guest linux-smp linux-images linux-census whole built run run-svm have-kvm lint check
.PHONY: test test-long test-unit test-schedules test-versus test-orderings test-local test-images test-install
.PHONY: test-plants test-plants-core test-linux test-svm test-svm-core test-qemu test-browser test-kubernetes
.PHONY: initrd gdb linux-guest fuzz picture reference stories soak load cases designs bench bench-linux bench-explorer bench-table bench-qemu costs trace-costs
.PHONY: install uninstall clean

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20
	@echo 'with VCPUS=$(VCPUS), ARGS= for more options of vmm, such as'
	@echo "  make run VCPUS=4 ARGS='--append \"queue=filo seed=7\"'"

build: vmm guest manual ## build the commands, the guest images and the manual pages (the default)

# With what writes the manual pages, so that what they share is compiled once.
vmm: ## build target/release/vmm, and target/release/litmus-case
	$(CARGO) build $(CARGO_FLAGS) --release --package vmm --package litmus --package manual \
		--features litmus/command --bin vmm --bin litmus-case --bin manual

manual: vmm ## write the manual pages, and completions for shells, to target/manual
	rm -rf $(MANUAL)
	$(OUT)/release/manual $(MANUAL)

# As `cargo test` builds them too, so that nothing is compiled for them alone.
examples: ## build the programs of vmm/examples
	$(CARGO) build $(CARGO_FLAGS) --workspace --examples

guest: ## build target/guest.bin, litmus.bin, sum.bin and those of examples/c, and of each the image for vmm explore
	@$(MAKE) --no-print-directory -j2 images explore-images
	@$(MAKE) --no-print-directory c-images

images:
	guest/build $(GUEST)
	guest/build -p litmus $(LITMUS)
	guest/build -p sum $(SUM)

explore-images:
	guest/build explore $(EXPLORE)
	guest/build -p litmus explore $(LITMUS_EXPLORE)
	guest/build -p sum explore $(SUM_EXPLORE)

# Where there is no C compiler, tests of these are skipped.
c-images:
	@if command -v $(CC) >/dev/null; then \
		for file in examples/c/*.c; do CC=$(CC) guest/ckit/build $$file >/dev/null || exit 1; done; \
		CC=$(CC) guest/ckit/build -o c-parts tests/c/parts.c >/dev/null; \
	else \
		echo 'make: no C compiler ($(CC)), so no guests of examples/c; Debian has one in the package gcc'; \
	fi

c-guest: ## make a guest of C files: C='path/to/file.c' gives target/file.bin and target/file-explore.bin
	@test -n '$(C)' || { echo 'make: which C files? make c-guest C=path/to/file.c' >&2; exit 2; }
	CC=$(CC) guest/ckit/build $(if $(NAME),-o $(NAME)) $(C)

linux-smp: ## make a guest of Linux's kernel/smp.c: LINUX= names a kernel tree, or 6.1 or 6.12 of Debian, which is fetched
	@test -n '$(LINUX)' || { echo 'make: which Linux? make linux-smp LINUX=6.12, or LINUX=/path/to/linux' >&2; exit 2; }
	CC=$(CC) guest/linux/build $(if $(NAME),-o $(NAME)) $(LINUX)

# Both of Debian's, for the tests, which are skipped where they cannot be had.
LINUX_VERSIONS := 6.1 6.12
linux-images:
	@for version in $(LINUX_VERSIONS); do \
		CC=$(CC) guest/linux/build -o linux-$$version $$version >/dev/null || \
			{ [ $$? = 3 ] || exit 1; echo "make: so there is no guest of Linux $$version"; }; \
	done

# The same files as libraries, of which `make designs` counts the accesses.
linux-census:
	@for version in $(LINUX_VERSIONS); do \
		CC=$(CC) guest/linux/build -o linux-$$version --census $$version || \
			{ [ $$? = 3 ] || exit 1; echo "make: so Linux $$version is not counted" >&2; }; \
	done

run: have-kvm build ## boot the guest image and run its selftest
	$(VMM) --vcpus $(VCPUS) $(ARGS) $(GUEST)

run-svm: build ## the same on a KVM of its own, in emulation, without /dev/kvm
	tests/svm/run $(VMM) $(GUEST) -- vmm --vcpus $(VCPUS) $(ARGS) guest.bin

have-kvm:
	@tests/have-kvm || { echo 'make: use `make run-svm`, which brings a KVM of its own' >&2; exit 1; }

# Of what is drawn at random, a few: `make test` draws more.
check: ## what to run before each commit, in two minutes: formatting, clippy, and the tests that need no guest image
	$(CARGO) fmt --all --check
	$(CARGO) clippy $(CARGO_FLAGS) --workspace --all-targets -- -D warnings
	$(CARGO) clippy $(CARGO_FLAGS) --workspace $(OF_PRODUCTS) -- -D warnings
	@PROPTEST_CASES=25 $(MAKE) --no-print-directory test-unit

# `make test` is what every change has to pass, in about twenty-five minutes on two processors: every
# part of the product, every oracle, every strategy and both hosts, each once. `make test-long` is
# everything, for before a release. What is only in the second differs in one of three ways from
# something that is in both: it is the same on the other host, it is another example of the same
# kind, or it is more of what is drawn at random or repeated. Nothing else is left out of the first.
test: ## run what every change has to pass: all that this host can run, in about twenty-five minutes
	MAKE='$(MAKE)' tests/all

test-long: ## run everything, with every plant, both hosts whole, and long searches: hours
	MAKE='$(MAKE)' tests/all long

# What the parts of `make test` need: built together, so that one waits for no other's last crate.
built: ## build what make builds, and the tests of it
	@$(MAKE) --no-print-directory -j3 vmm images explore-images whole
	@$(MAKE) --no-print-directory build examples
	@$(MAKE) --no-print-directory linux-images

test-unit: ## tests that need no guest image
	PROPTEST_CASES=$(or $(PROPTEST_CASES),$(if $(LONG),256,5)) $(if $(LONG),,MODEL_STATES=1000) $(TESTS) --no-fail-fast
	$(CARGO) test $(CARGO_FLAGS) --package guest-kit --features census --lib witness::

test-schedules: ## every queue in thousands of schedules, under shuttle
	SCHEDULES=$(if $(LONG),100,20) $(SHUTTLE) test $(CARGO_FLAGS) --release --package guest --lib schedules::

# With what clippy says of the code for shuttle: `make lint` would compile all of it for that alone.
test-versus: guest ## that the explorer and shuttle are compared on the same calls
	$(SHUTTLE) clippy $(CARGO_FLAGS) --release --package guest-kit --package guest --package versus --all-targets -- -D warnings
	GUEST=$(abspath $(GUEST)) EXPLORE=$(abspath $(EXPLORE)) \
		$(SHUTTLE) test $(CARGO_FLAGS) --release --package versus

# Not optimised: they take less than a second either way, and what they need twice as long to build.
test-orderings: ## the orderings of the path, under loom
	RUSTFLAGS='--cfg loom' CARGO_TARGET_DIR=$(OUT)/loom \
		$(CARGO) test $(CARGO_FLAGS) --package guest --lib orderings::

# One executable for both hosts, without the debug information, which the nested one would unpack.
# The programs of the same package are built with it. It is replaced at once, never missing:
# test-svm-core may be starting beside.
whole:
	@$(TESTS) --test whole --no-run
	@$(TESTS) --quiet --test whole --no-run --message-format=json | \
		sed -n '/tests\/whole\/main.rs/s/.*"executable":"\([^"]*\)".*/\1/p' | xargs -I{} strip --strip-debug -o $(WHOLE).new {}
	@mv $(WHOLE).new $(WHOLE)

test-images: build ## that the guest images are the same bytes wherever they are built
	GUEST=$(abspath $(GUEST)) $(TESTS) --test images

test-install: build ## install into an empty folder, and use what is there from another one
	$(TESTS) --test install

# Marked as ignored are those that only `make test-long` runs, which sets LONG, and those of `make cases`.
IGNORED_TOO := --include-ignored --skip case_breaks
# One more at a time than there are processors: some of them wait most of the time.
test-local: have-kvm build examples whole gdb ## whole runs on this host's /dev/kvm
	VMM=$(VMM) GUEST=$(GUEST) EXAMPLES=$(OUT)/debug/examples $(if $(shell command -v gdb),,$(if $(wildcard $(GDB)),GDB=$(GDB))) \
		$(if $(LONG),LONG=1 WHOLE_VCPUS=$(LONG_VCPUS)) \
		$(WHOLE) --skip qemu:: --skip linux_guest:: --test-threads $$(($$(nproc) + 1)) $(if $(LONG),$(IGNORED_TOO))

PLANTS := VMM=$(abspath $(VMM)) GUEST=$(abspath $(GUEST)) $(TESTS) --test plants --
test-plants-core: have-kvm build ## bugs planted in the guest one at a time, one for each oracle, that vmm explore has to find
	$(PLANTS)

test-plants: have-kvm build ## the same, with more bugs of each kind
	$(PLANTS) --include-ignored

# Where the compiler and the trees of `linux-images` are.
test-linux: have-kvm build linux-images ## bugs planted in copies of Linux's kernel/smp.c, that vmm explore has to find
	VMM=$(abspath $(VMM)) GUEST=$(abspath $(GUEST)) $(if $(LONG),LINUX_VERSIONS="$(LINUX_VERSIONS)") \
		$(TESTS) --test linux $(if $(LONG),-- --include-ignored)

REFERENCE_CASES ?= 1000
REFERENCE_SEED ?= 2
REFERENCE_STATES ?= 8000
MODEL_CASES ?= 5000
LITMUS_CASES ?= 100
reference: have-kvm build whole ## a thousand cases drawn at random, every search of them held against the reference search
	PROPTEST_CASES=$(MODEL_CASES) $(CARGO) test $(CARGO_FLAGS) --release --package vmm --lib enumeration_test::
	LITMUS_CASES=$(LITMUS_CASES) VMM=$(VMM) GUEST=$(GUEST) $(WHOLE) litmus::tests_drawn
	REFERENCE_CASES=$(REFERENCE_CASES) REFERENCE_SEED=$(REFERENCE_SEED) REFERENCE_STATES=$(REFERENCE_STATES) \
		$(PLANTS) --nocapture searches_come

# The programs of vmm/examples and QEMU are not in the nested host, and a machine of 65 vCPUs takes
# minutes there.
SVM_LACKS := qemu:: image_lint:: examples:: selftest::a_large_machine selftest::all_pairs
IN_SVM = SVM_TIME_LIMIT=14400 tests/svm/run $(VMM) $(LITMUS_CASE) $(GUEST) $(EXPLORE) $(LITMUS) $(LITMUS_EXPLORE) \
	$(SUM) $(SUM_EXPLORE) $(wildcard $(LINUX_VERSIONS:%=$(OUT)/linux-%.bin) $(LINUX_VERSIONS:%=$(OUT)/linux-%-explore.bin)) \
	$(SVM_DIR)/vmlinuz $(INITRD) $(wildcard $(GDB)) $(WHOLE) -- env VMM=/lab/vmm GUEST=/lab/guest.bin WHOLE_VCPUS=$(SVM_VCPUS) \
	LINUX_KERNEL=/lab/vmlinuz LINUX_INITRD=/lab/initrd.gz \
	whole $(SVM_LACKS:%=--skip %)
test-svm: build whole initrd gdb ## whole runs on the KVM of an emulated AMD processor
	$(IN_SVM) $(if $(LONG),$(IGNORED_TOO))

# What `make test` runs there, if test-local runs everything on this host's /dev/kvm: what depends
# on the KVM that is under the VMM. That is how a machine boots, at several sizes, and CPUs that
# are started anew and taken down;
SVM_CORE := selftest::a_machine_of_any_size selftest::every_transport stress::cpus_leave
# the ways of an IPI to its target, and what is counted on the way: exits, statistics, tracepoints;
SVM_CORE += transports:: deliveries:: bench::each_exit sources:: traces::a_trace_has_every_ipi
# vCPUs that are paused, kicked, held at breakpoints, stepped;
SVM_CORE += stalls::a_stalled_machine stalls::a_guest_ends stalls::no_call_is_lost \
	scripts::a_breakpoint scripts::a_cpu_is_held scripts::a_cpu_is_stepped scripts::a_held_cpu scripts::a_paused_cpu \
	scripts::steps_are scripts::ipis_on_the_wire meddling:: wire::what_is_lost interrupt::guests_that_do_not_listen
# every exit that a guest can make which wants to do harm, and one that cannot go on;
SVM_CORE += hostile::
# machines that are rewound and moved step by step: a search by each strategy, a replay, interrupts
# at every moment, store buffers, a guest that never goes on;
SVM_CORE += explore::the_lost_call explore::a_call_at_the_head explore::a_mask_that_is_freed believed::the_reference_says \
	believed::any_number_of_machines believed::interrupts_that_are_off exits::of_what_breaks exits::in_random_runs \
	exits::with_interrupts_off deadlocks::an_interrupt_that_comes deadlocks::who_takes_its_own \
	linux_smp::its_calls linux_smp::it_warns litmus::an_interrupt_overtakes litmus::handlers_read litmus::what_is_found hostile_search::a_guest_that_never
# and every story, which puts all of it together.
SVM_CORE += stories::
# A debugger, whose stops are instructions there,
SVM_CORE += gdb::every_vcpu gdb::a_cpu_stops gdb::of_two_cpus gdb::sti_and_hlt gdb::registers gdb::what_this_host \
	gdb::a_thousand gdb::a_client_that_vanishes gdb::instructions gdb::an_interrupt_that \
	gdb_replay::every_instruction gdb_replay::turns_are
# and Linux itself, a guest that only this host can run.
SVM_CORE += linux_guest::
# With what was built before: cargo may be at work for other parts. A name that is no test's any
# more is an error.
test-svm-core: initrd gdb ## the part of these that depends on the KVM under the VMM
	@for name in $(SVM_CORE); do \
		$(WHOLE) --list "$$name" 2>/dev/null | grep -q ': test$$' || { echo "make: SVM_CORE: no test is called $$name" >&2; exit 1; }; \
	done
	$(IN_SVM) $(SVM_CORE)

# Without it, what needs it is skipped, or done by a gdb on the PATH.
gdb:
	@tests/gdb/prepare $(OUT)/gdb || true

initrd: ## what Linux boots into as a guest: busybox, init and a program that crosses CPUs
	@tests/svm/prepare $(SVM_DIR)
	@CC=$(CC) tests/initrd/build $(SVM_DIR)/busybox $(INITRD)

linux-guest: have-kvm build whole initrd ## the scenarios on Linux, on this host, if it executes ring 0: LINUX_KERNEL=vmlinuz, LINUX_RUNS=20
	VMM=$(VMM) LINUX_KERNEL=$(or $(LINUX_KERNEL),$(SVM_DIR)/vmlinuz) LINUX_INITRD=$(INITRD) \
		LINUX_RUNS=$(or $(LINUX_RUNS),1) $(WHOLE) linux_guest::

stories: have-kvm build whole initrd ## every scenario a thousand times, and fifty times in the nested host
	STORY_RUNS=1000 VMM=$(VMM) GUEST=$(GUEST) $(WHOLE) stories::
	SVM_TIME_LIMIT=7200 tests/svm/run $(VMM) $(GUEST) $(WHOLE) -- env VMM=/lab/vmm GUEST=/lab/guest.bin \
		STORY_RUNS=50 whole stories::
	SVM_TIME_LIMIT=14400 tests/svm/run $(VMM) $(SVM_DIR)/vmlinuz $(INITRD) $(WHOLE) -- env VMM=/lab/vmm LINUX_RUNS=20 \
		LINUX_KERNEL=/lab/vmlinuz LINUX_INITRD=/lab/initrd.gz whole linux_guest::

SOAK := stalls::no_call_is_lost --nocapture
soak: have-kvm build whole ## pause vCPUs a hundred thousand times at random points, and ten thousand in the nested host
	STALL_SOAK=100000 VMM=$(VMM) GUEST=$(GUEST) $(WHOLE) $(SOAK)
	SVM_TIME_LIMIT=7200 tests/svm/run $(VMM) $(GUEST) $(WHOLE) -- env VMM=/lab/vmm GUEST=/lab/guest.bin \
		STALL_SOAK=10000 whole $(SOAK)

load: have-kvm build whole ## 1,000 vCPUs, 1,000 runs, a million commands, a disk full at each page, 100 kills: an hour
	LOAD=1 VMM=$(VMM) GUEST=$(GUEST) $(WHOLE) load:: --nocapture --test-threads 1

cases: have-kvm build whole ## explore every case with every queue: what breaks has to come again a thousand times
	EXPLORE_REPLAYS=1000 EXPLORE_TIME=1200 VMM=$(VMM) GUEST=$(GUEST) $(WHOLE) case_breaks --ignored --nocapture

test-qemu: guest whole ## the guest image under QEMU, without vmm
	tests/svm/prepare $(SVM_DIR)
	GUEST=$(GUEST) $(WHOLE) qemu:: image_lint::

test-browser: build ## the pages of --report in a real browser
	tests/browser/prepare
	VMM=$(abspath $(VMM)) GUEST=$(abspath $(GUEST)) \
		$(TESTS) --test browser --test diagram --test layout -- --ignored

test-kubernetes: ## the job for Kubernetes, against the schemas of its API
	tests/kubernetes/validate $(OUT)/kubernetes

picture: have-kvm build ## draw docs/report.png anew, the page of the story in README.md
	tests/browser/prepare
	tests/browser/picture $(VMM) $(GUEST) docs/report.png

designs: linux-census ## count what each queue design costs, and Linux's own file, and print the table of docs/designs.md
	@LINUX_CENSUS=$(abspath $(OUT)) $(CARGO) run $(CARGO_FLAGS) --quiet --package guest --features census --example designs

# For each target. The corpus grows in target/fuzz/corpus, and the one in the repository stays small.
FUZZ_SECONDS ?= 60
FUZZ_SEED ?= $(shell date +%s)
FUZZ_TARGETS ?= $(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs)))
fuzz: ## fuzz what is read from outside, for FUZZ_SECONDS=60 each, by cargo fuzz if it and a nightly compiler are there
	@if cargo +nightly fuzz --version >/dev/null 2>&1; then \
		for target in $(FUZZ_TARGETS); do \
			mkdir -p $(OUT)/fuzz-corpus/$$target; \
			cargo +nightly fuzz run --features libfuzzer $$target $(OUT)/fuzz-corpus/$$target fuzz/corpus/$$target \
				-- -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=8192 -print_final_stats=1 || exit 1; \
		done; \
	else \
		echo 'make: no `cargo +nightly fuzz` here, so inputs are drawn without a look at what they reach'; \
		FUZZ_SECONDS=$(FUZZ_SECONDS) FUZZ_SEED=$(FUZZ_SEED) FUZZ_TARGETS='$(FUZZ_TARGETS)' \
			$(CARGO) test $(CARGO_FLAGS) --profile fuzz --package fuzz --test corpora -- --nocapture; \
	fi

costs: build whole ## exits of 10,000 IPIs of each kind, held to the architecture on an emulated AMD processor
	SVM_TIME_LIMIT=7200 tests/svm/run $(VMM) $(GUEST) $(WHOLE) -- env VMM=/lab/vmm GUEST=/lab/guest.bin \
		BENCH_ROUNDS=10000 whole bench::each_exit

# What a line costs with probes left out of the image, with probes that nobody has armed (twice, for the spread), and
# with all that --trace arms. The nested host gives the figures that can be compared: it executes what it runs.
TRACED_LINES := --vcpus 4 --by ipi --to all --receiver halted --transport x2apic,shorthand --rounds 500 --runs 15
trace-costs: build ## what a trace costs, and probes that nobody has armed, on an emulated AMD processor
	guest/build unprobed $(OUT)/unprobed.bin
	SVM_TIME_LIMIT=3600 tests/svm/run $(VMM) $(GUEST) $(OUT)/unprobed.bin -- sh -ec ' \
		vmm bench $(TRACED_LINES) --json none.json unprobed.bin >/dev/null; \
		echo "== probes that nobody has armed, beside none"; \
		vmm bench $(TRACED_LINES) --baseline none.json --json off.json guest.bin; \
		echo "== the same once more, beside itself"; \
		vmm bench $(TRACED_LINES) --baseline off.json guest.bin; \
		echo "== a trace, beside probes that nobody has armed"; \
		vmm bench $(TRACED_LINES) --traced --baseline off.json guest.bin'

BESIDE_QEMU := $(CARGO) run $(CARGO_FLAGS) --quiet --package tests --bin beside-qemu -- $(VMM) $(GUEST)
bench: have-kvm build test-versus ## measure what IPIs and calls cost on this host, how fast it explores, and whole runs beside QEMU
	$(VMM) bench $(ARGS) $(GUEST)
	@$(MAKE) --no-print-directory bench-linux
	$(VERSUS) $(LOST_CALL) $(EXPLORE)
	$(BESIDE_QEMU)

# The lines of calls that both have, and of those to several that with the same design.
BENCH_LINUX := --by call --receiver halted --queue llist --vcpus 8 --runs 6 --rounds 500
BENCH_JSON := $(OUT)/bench-llist.json
bench-linux: have-kvm build linux-images ## calls of our queue=llist beside those of Linux's own kernel/smp.c
	@for version in $(LINUX_VERSIONS); do \
		image=$(OUT)/linux-$$version.bin; \
		[ -f $$image ] || continue; \
		test $$version != $(firstword $(LINUX_VERSIONS)) -a -f $(BENCH_JSON) || \
			$(VMM) bench $(BENCH_LINUX) --json $(BENCH_JSON) $(GUEST) >/dev/null || exit 1; \
		$(VMM) bench $(BENCH_LINUX) --json $(OUT)/bench-linux-$$version.json $$image >/dev/null || exit 1; \
		echo "== queue=llist of our guest, beside kernel/smp.c of Linux $$version"; \
		$(VMM) compare $(BENCH_JSON) $(OUT)/bench-linux-$$version.json || exit 1; \
	done

bench-qemu: have-kvm build ## whole runs beside QEMU's microvm with the same image (ARGS='PAIRS VCPUS', such as '31 1,16')
	$(BESIDE_QEMU) $(ARGS)

bench-explorer: have-kvm test-versus ## how fast vmm explore is, side by side with shuttle on the same calls
	$(VERSUS) $(ARGS) $(LOST_CALL) $(EXPLORE)

TABLE := 10000000 100M
bench-table: ## how fast the table of a search's states is, with a limit on memory and without (TABLE='STATES LIMIT')
	$(CARGO) run $(CARGO_FLAGS) --quiet --release --package vmm --example states_on_disk -- $(TABLE)

lint: ## formatting, and everything the compiler and clippy have to say
	$(CARGO) fmt --all --check
	$(CARGO) clippy $(CARGO_FLAGS) --workspace --all-targets -- -D warnings
	$(CARGO) clippy $(CARGO_FLAGS) --workspace $(OF_PRODUCTS) -- -D warnings
	$(CARGO) clippy $(CARGO_FLAGS) --package vmm --lib --no-default-features -- -D warnings
	$(CARGO) clippy $(CARGO_FLAGS) --package guest-kit --package guest --features guest/census --all-targets -- -D warnings
	$(CARGO) clippy $(CARGO_FLAGS) --package litmus --features command --bin litmus-case -- -D warnings
	for image in image explore unprobed; do \
		for guest in guest litmus sum; do \
			$(CARGO) clippy $(CARGO_FLAGS) --package $$guest --features $$image --bin $$guest --profile guest -- -D warnings || exit 1; \
		done; \
	done
	for image in image explore; do \
		$(CARGO) clippy $(CARGO_FLAGS) --package ckit --features $$image --lib --profile guest -- -D warnings || exit 1; \
	done
	sh -n guest/build
	sh -n guest/ckit/build
	sh -n guest/linux/build
	sh -n vmm/manual/names-only
	for script in tests/svm/* tests/initrd/build tests/initrd/init tests/gdb/* tests/browser/* tests/kubernetes/* tests/all tests/have-kvm; do sh -n $$script || exit 1; done

COMMANDS := $(VMM) $(LITMUS_CASE)
IMAGES := $(GUEST) $(EXPLORE) $(LITMUS) $(LITMUS_EXPLORE) $(SUM) $(SUM_EXPLORE)
BIN = $(DESTDIR)$(PREFIX)/bin
LIB = $(DESTDIR)$(PREFIX)/lib/ipi-lab
SHARE = $(DESTDIR)$(PREFIX)/share
install: ## copy commands, images, scenarios, docs, manual pages and completions to PREFIX (after make build)
	@for file in $(COMMANDS) $(IMAGES) $(MANUAL)/man/vmm.1; do \
		test -f $$file || { echo 'make: run `make build` first' >&2; exit 1; }; \
	done
	@mkdir -p "$(BIN)"
	for file in $(COMMANDS); do \
		vmm/manual/names-only $$file "$(BIN)/$${file##*/}" || exit 1; \
	done
	install -D -m 644 -t "$(LIB)" $(IMAGES)
	install -D -m 644 -t "$(SHARE)/man/man1" $(MANUAL)/man/*.1
	install -D -m 644 $(MANUAL)/bash/vmm.bash "$(SHARE)/bash-completion/completions/vmm"
	install -D -m 644 $(MANUAL)/bash/litmus-case.bash "$(SHARE)/bash-completion/completions/litmus-case"
	install -D -m 644 -t "$(SHARE)/zsh/site-functions" $(MANUAL)/zsh/*
	install -D -m 644 -t "$(SHARE)/fish/vendor_completions.d" $(MANUAL)/fish/*
	@(cd scenarios && find * -type f) | while read -r file; do \
		install -D -m 644 "scenarios/$$file" "$(SHARE)/ipi-lab/$$file" || exit 1; \
	done
	@for file in *.md LICENSE-* $$(find docs -type f); do \
		install -D -m 644 "$$file" "$(SHARE)/doc/ipi-lab/$$file" || exit 1; \
	done
	@ln -sfn ../../ipi-lab "$(SHARE)/doc/ipi-lab/scenarios"

uninstall: ## remove from PREFIX what make install puts there
	rm -f "$(BIN)/vmm" "$(BIN)/litmus-case" "$(SHARE)/man/man1/vmm.1" "$(SHARE)/man/man1/"vmm-*.1 \
		"$(SHARE)/man/man1/litmus-case.1" "$(SHARE)/man/man1/"litmus-case-*.1 \
		"$(SHARE)/bash-completion/completions/vmm" "$(SHARE)/bash-completion/completions/litmus-case" \
		"$(SHARE)/zsh/site-functions/_vmm" "$(SHARE)/zsh/site-functions/_litmus-case" \
		"$(SHARE)/fish/vendor_completions.d/vmm.fish" "$(SHARE)/fish/vendor_completions.d/litmus-case.fish"
	rm -rf "$(LIB)" "$(SHARE)/ipi-lab" "$(SHARE)/doc/ipi-lab"

clean: ## remove everything that was built or fetched
	$(CARGO) clean
