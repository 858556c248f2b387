# Reads the assembly that a compiler has made of a C file with -fsanitize=thread, and sees to it that every access to
# memory stands right behind its hook, or a search would not know of it. Writes the same assembly, in which hooks
# whose access comes only behind the next hook (as where a small structure is copied) are replaced by those that say
# so; and a hook of several words, whose instructions all follow, by one before each of these. What is left is an
# error: a structure that a call takes or returns, inline assembly, a compiler that moves accesses. Only reads and
# writes text.
#
# Passed over are the CPU's own stack, also where a register has an address of it, since compilers announce every
# variable there whose address is known elsewhere, and constants. With -v leaves_loads=1, one load behind the hook of an atomic one is no error.

function fail(what,    place) {
    place = file[at_file] != "" ? file[at_file] ":" at_line : FILENAME
    if (!(place SUBSEP what in said)) {
        said[place, what] = 1
        print place ": " what > "/dev/stderr"
    }
    failed = 1
}

# The memory operand of an instruction, or nothing.
function memory(operands,    rest) {
    rest = operands
    if (match(rest, /[^, \t]*\([^)]*\)/))
        return substr(rest, RSTART, RLENGTH)
    if (match(rest, /%[c-gs]s:[^, \t]+/))
        return substr(rest, RSTART, RLENGTH)
    if (match("," rest, /,[ \t]*\*?[A-Za-z_.][A-Za-z0-9_.+-]*/))
        return substr("," rest, RSTART + 1, RLENGTH - 1)
    return ""
}

function is_constant(operand,    symbol) {
    symbol = operand
    sub(/^[*]/, "", symbol)
    if (!match(symbol, /^[A-Za-z_.$][A-Za-z0-9_.$]*/))
        return 0
    return substr(symbol, 1, RLENGTH) in constant
}

# Which registers have an address of the stack, as a text of digits; what is known at a label is what is known on all
# ways to it.

function at_entry(    r, text) {
    for (r = 1; r <= 16; r++) text = text (names[r] == "rsp" || names[r] == "rbp" ? 1 : 0)
    return text
}

function has_stack(register) {
    return register in number_of && substr(state, number_of[register], 1) == 1
}

function set(register, value,    r) {
    r = number_of[register]
    if (r && !(register ~ /^(rsp|rbp|esp|ebp)$/)) state = substr(state, 1, r - 1) value substr(state, r + 1)
}

function meet(one, other,    r, text) {
    if (one == "") return other
    if (other == "") return one
    for (r = 1; r <= 16; r++) text = text (substr(one, r, 1) == 1 && substr(other, r, 1) == 1 ? 1 : 0)
    return text
}

# What is known at `label` is at most this.
function comes_to(label, known,    met) {
    met = meet(at_label[label], known)
    if (met != at_label[label]) { at_label[label] = met; changed = 1 }
}

# Whether a memory operand is on the stack: its base or index is an address of it.
function is_stack(operand,    registers, count, part, i) {
    registers = operand
    sub(/^[^(]*\(/, "", registers)
    sub(/\).*$/, "", registers)
    gsub(/[%\t ]/, "", registers)
    count = split(registers, part, ",")
    for (i = 1; i <= count && i <= 2; i++) if (has_stack(part[i])) return 1
    return 0
}

# What an instruction makes of it.
function follow(op, operands,    destination, source) {
    if (op ~ /^(cmp|test|push|nop|ret|j)/) return
    if (op ~ /^call/) {
        for (destination in clobbered) set(clobbered[destination], 0)
        argument = ""
        return
    }
    if (op ~ /^(mul|div|idiv|cqto|cltq|cltd|cwtl|cqo|cmpxchg|xadd|xchg|rep)/ || (op ~ /^imul/ && operands !~ /,/)) {
        set("rax", 0); set("rdx", 0)
        if (op ~ /^rep/) { set("rcx", 0); set("rsi", 0); set("rdi", 0) }
    }
    destination = source = operands
    if (!match(destination, /%[a-z0-9]+$/)) return
    destination = substr(destination, RSTART + 1)
    sub(/,?[ \t]*%[a-z0-9]+$/, "", source)
    if (destination ~ /^[er]di$/) argument = op ~ /^lea/ ? source : op ~ /^movq?$/ && source ~ /^%/ ? "(" source ")" : ""
    if (op ~ /^xchg/ && source ~ /^%/) set(substr(source, 2), 0)
    if (op ~ /^lea/) set(destination, is_stack(source))
    else if (op ~ /^movq?$/ && source ~ /^%/) set(destination, has_stack(substr(source, 2)))
    else if (op ~ /^(addq?|incq?|decq?)$/ && (destination in number_of)) {
        if (source ~ /^%/ && has_stack(substr(source, 2))) set(destination, 1)
    } else if (op ~ /^subq?$/ && (destination in number_of)) {
        # The distance of two addresses is none.
        if (source ~ /^%/ && has_stack(substr(source, 2))) set(destination, 0)
    } else if (op ~ /^andq?$/ && source ~ /^[$]-/) return
    else if (op ~ /^cmov/) { if (!(source ~ /^%/ && has_stack(substr(source, 2)))) set(destination, 0) }
    else set(destination, 0)
}

BEGIN {
    split("rax rcx rdx rsi rdi r8 r9 r10 r11", clobbered, " ")
    split("rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15", names, " ")
    for (r = 1; r <= 16; r++) {
        number_of[names[r]] = r
        if (r > 8) for (i = 1; i <= 3; i++) number_of[names[r] substr("dwb", i, 1)] = r
    }
    split("a c d b", old, " ")
    for (r = 1; r <= 4; r++) {
        number_of["e" old[r] "x"] = number_of[old[r] "x"] = r
        number_of[old[r] "l"] = number_of[old[r] "h"] = r
    }
    # What can be used between: the registers whose parts all have names.
    for (r = 1; r <= 4; r++) {
        name_of[r, 1] = old[r] "l"; name_of[r, 2] = old[r] "x"; name_of[r, 3] = "e" old[r] "x"; name_of[r, 4] = "r" old[r] "x"
        part_of[r] = "%([er]?" old[r] "x|" old[r] "[lh])"
    }
    split("sp bp si di", old, " ")
    for (r = 1; r <= 4; r++) number_of["e" old[r]] = number_of[old[r]] = number_of[old[r] "l"] = r + 4
}

# From here on no access is announced.
function forget() {
    credit = used = pending = each_by_itself = 0
    split("", operand_of)
}

# The hooks that wait for their access announce it as one that comes later. Says whether there are any.
function make_late(    i, name, any) {
    for (i = 1; i <= pending; i++) {
        if (on_stack[i] ? done[i] : used) continue
        any = 1
        name = line[hook_at[i]]
        if (match(name, /(volatile_)?(read|write)[1248]([^0-9]|$)/)) {
            name = substr(name, RSTART, RLENGTH)
            gsub(/[^a-z0-9_]/, "", name)
            sub(/__tsan_[a-z_]*[0-9]+/, "lab_late_" name, line[hook_at[i]])
        }
    }
    return any
}

# ---- Hooks of several words ----
#
# The compiler announces a structure that it sets, or copies, once, and then moves it word by word. Each move gets a
# hook of its own, by a function that leaves all registers and flags as they are (`each.rs`), and the first hook goes.
# That takes a straight way, on which all moves, and nothing else, reach the structure from one register that calls
# leave alone. Otherwise the first hook stays, and is good for as many accesses as the structure has words.

# Takes an operand such as 8(%rbx) apart. Says whether it is one.
function taken_apart(operand) {
    if (operand !~ /^-?[0-9]*\(%[a-z0-9]+\)$/) return 0
    base = operand
    sub(/^[^(]*\(%/, "", base)
    sub(/\)$/, "", base)
    offset = operand + 0
    return 1
}

# The register in which an instruction leaves its result, or nothing.
function destination_of(operands) {
    return match(operands, /%[a-z0-9]+$/) ? substr(operands, RSTART + 1) : ""
}

# Whether an instruction changes this register, or may.
function changes(op, operands, register) {
    if (op ~ /^(xchg|xadd|cmpxchg)/ && operands ~ ("%" register)) return 1
    if (register == "rsp" && op ~ /^(push|pop|leave|enter|call)/) return 1
    if (register == "rbp" && op ~ /^(leave|enter)/) return 1
    if (op ~ /^(cmp|test|push)/) return 0
    return number_of[register] && number_of[destination_of(operands)] == number_of[register]
}

# A hook of several words, in line `n`. Returns how many accesses it is good for where it stays.
function spread_begins(n, operands,    bytes, words) {
    bytes = operands ~ /_range/ ? length_given : 16
    if (!bytes) {
        fail("a structure of a size that cannot be seen in the assembly; compile with -O2")
        return 0
    }
    words = int((bytes + 7) / 8) + (bytes % 8 ? 1 : 0)
    if (!taken_apart(argument) || base !~ /^(rbx|rbp|rsp|r1[2-5])$/) return words
    spreads++
    spread_at[spreads] = n
    spread_base[spreads] = base
    spread_first[spreads] = offset
    spread_bytes[spreads] = bytes
    spread_words[spreads] = words
    spread_kind[spreads] = operands ~ /write/ ? "write" : "read"
    spread_moves[spreads] = spread_covered[spreads] = 0
    return 0
}

# The hook of a spread stays. Its moves count as accesses to what that has announced.
function spread_fails(s) {
    if (!spread_base[s]) return
    if (!has_stack(spread_base[s])) used += spread_moves[s]
    credit += spread_words[s]
    spread_base[s] = ""
    if (used > credit) fail("more accesses to a structure than the compiler has announced; copy it member by member")
}

# The straight way ends, or a hook of this kind comes, of which the accesses that follow can be as well.
function spread_ends(kind,    s) {
    for (s = 1; s <= spreads; s++)
        if (kind == "" || spread_kind[s] == kind) spread_fails(s)
    if (kind == "") spreads = 0
}

# Whether instruction `n`, which is no call and no jump, is a move of a spread that is open.
function spread_goes_on(n, op, operands,    s, m, bytes, operand, is_its, is_write, i) {
    for (s = 1; s <= spreads; s++) {
        if (!spread_base[s]) continue
        operand = memory(operands)
        if (operand != "" && op !~ /^lea/ && taken_apart(operand) && base == spread_base[s]) {
            bytes = op ~ /^mov(q|abs)?$/ ? 8 : op ~ /^mov(l|slq)$/ ? 4 : op ~ /^mov(w|[sz]w[lq])$/ ? 2 : op ~ /^mov(b|[sz]b[wlq])$/ ? 1 : 0
            is_write = operands ~ /\)$/
            # Behind it, and before it if it is of at most a word.
            if (offset < spread_first[s] + spread_bytes[s] && offset + (bytes ? bytes : 8) > spread_first[s]) {
                if (!bytes || is_write != (spread_kind[s] == "write") || offset < spread_first[s] ||
                    offset + bytes > spread_first[s] + spread_bytes[s]) { spread_fails(s); continue }
                for (i = offset; i < offset + bytes; i++) if ((s, i) in spread_byte && spread_byte[s, i] == spread_at[s]) break
                if (i < offset + bytes) { spread_fails(s); continue }
                for (i = offset; i < offset + bytes; i++) spread_byte[s, i] = spread_at[s]
                m = ++spread_moves[s]
                move_at[s, m] = n
                move_offset[s, m] = offset
                move_bytes[s, m] = bytes
                spread_covered[s] += bytes
                is_its = 1
                if (spread_covered[s] == spread_bytes[s]) { spread_out(s); spread_base[s] = ""; continue }
            }
        }
        # Where the base changes, what follows is somewhere else.
        if (changes(op, operands, spread_base[s])) spread_fails(s)
    }
    return is_its
}

function spread_out(s,    m, at) {
    line[spread_at[s]] = "# each word of it has its hook"
    for (m = 1; m <= spread_moves[s]; m++) {
        at = move_at[s, m]
        # The push has moved %rsp by one word.
        before[at] = before[at] "\tpushq\t%rdi\n" \
            "\tleaq\t" (move_offset[s, m] + (spread_base[s] == "rsp" ? 8 : 0)) "(%" spread_base[s] "), %rdi\n" \
            "\tcall\tlab_each_" spread_kind[s] move_bytes[s, m] "\n\tpopq\t%rdi\n"
    }
}

{
    line[NR] = $0
    if ($1 ~ /^j/) target[$2] = 1
    # A label whose address is taken can be jumped to as well, from anywhere.
    else {
        text = $0
        while (match(text, /\.L[0-9]+/)) {
            label = substr(text, RSTART, RLENGTH)
            text = substr(text, RSTART + RLENGTH)
            if (text !~ /^[A-Za-z0-9_:]/) target[label] = taken[label] = 1
        }
    }
    if ($1 == ".section") section = $2
    else if ($1 == ".text" || $1 == ".data" || $1 == ".bss") section = $1
    else if ($1 ~ /:$/ && $1 !~ /^#/ && section ~ /^"?\.rodata/) {
        label = $1
        sub(/:$/, "", label)
        constant[label] = 1
    }
}

END {
    do {
        changed = 0
        walk(0)
    } while (changed)
    walk(1)
    for (n = 1; n <= NR && !failed; n++) printf "%s%s\n", before[n], line[n]
    exit failed
}

# Goes through all instructions: to learn what is known at each label, or, if it `judges`, to look at their accesses.
function walk(judges,    n, text, op, operands, word, name, in_text) {
    forget()
    in_text = 1
    state = at_entry()
    for (n = 1; n <= NR; n++) {
        text = line[n]
        if (text ~ /^[ \t]*#APP/) inline = 1
        if (text ~ /^[ \t]*#NO_APP/) inline = 0
        sub(/[ \t]*#.*$/, "", text)
        sub(/^[ \t]+/, "", text)
        if (text == "") continue
        split(text, word, /[ \t]+/)
        op = word[1]
        if (op == ".file" && word[2] ~ /^[0-9]+$/) {
            name = text
            sub(/^.file[ \t]+[0-9]+[ \t]+/, "", name)
            sub(/[ \t]+md5.*$/, "", name)
            gsub(/"[ \t]+"/, "/", name)
            gsub(/"/, "", name)
            file[word[2]] = name
        }
        if (op == ".loc") { at_file = word[2]; at_line = word[3] }
        if (op == ".section") in_text = word[2] ~ /^"?\.text/ || text ~ /,[ \t]*"[a-z]*x/
        if (op == ".text") in_text = 1
        if (op == ".data" || op == ".bss") in_text = 0
        if (op ~ /:$/) {
            sub(/:$/, "", op)
            if (op !~ /^\.L/) {
                # A function begins, without a hook; elsewhere a jump can bring one along.
                spread_ends("")
                forget()
                length_given = 0
                argument = ""
                if (in_text) state = at_entry()
            } else if (op in target) {
                spread_ends("")
                length_given = 0
                argument = ""
                comes_to(op, state)
                state = at_label[op]
                if (op in brought && credit < brought[op]) { credit = brought[op]; used = 0 }
                straight = 0
                if (op in taken) state = at_entry()
            }
            # Other labels are for debuggers.
            continue
        }
        if (!in_text || op ~ /^\./) continue
        operands = text
        sub(/^[^ \t]+[ \t]*/, "", operands)
        if (op ~ /^(rep|repz|repnz|lock|notrack)$/) {
            op = op " " word[2]
            sub(/^[^ \t]+[ \t]*/, "", operands)
        }
        if (op == "movl" && operands ~ /^[$][0-9]+, *%esi$/) {
            length_given = operands
            sub(/^[$]/, "", length_given)
            length_given += 0
        }
        if (judges) {
            if (op ~ /^call/ && operands ~ /^__tsan_(unaligned_)?(volatile_)?(read|write)/)
                spread_ends(operands ~ /write/ ? "write" : "read")
            else if (op ~ /^(j|ret|ud2|rep|call|hlt)/) spread_ends("")
            if (op ~ /^(j|call|ret)/ || !spread_goes_on(n, op, operands)) judge(n, op, operands)
            # A string instruction makes all accesses that were announced.
            if (op ~ /^rep/) forget()
        }
        if (op ~ /^(call|j)/) length_given = 0
        else if (argument != "" && taken_apart(argument) && changes(op, operands, base)) argument = ""
        if (op ~ /^j/ && operands !~ /^\*/) comes_to(operands, state)
        # Behind these comes what another way leads to.
        if (op ~ /^(jmp|ret|ud2)/) state = ""
        else if (state != "") follow(op, operands)
    }
}

# Sees to the hooks and accesses of one instruction, in line n.
function judge(n, op, operands) {
    if (op ~ /^call/) {
        if (operands ~ /^(__tsan_|lab_late_)(unaligned_)?(volatile_)?(read|write)/) {
            if (!straight || !make_late()) forget()
            credit += operands ~ /(16|_range)/ ? spread_begins(n, operands) : 1
            hook_at[++pending] = n
            hook_writes[pending] = operands ~ /write/
            hook_bytes[pending] = match(operands, /(read|write)(1|2|4|8)$/) ? substr(operands, RSTART + RLENGTH - 1) + 0 : 0
            on_stack[pending] = has_stack("rdi")
            accesses[pending] = argument
            done[pending] = 0
            straight = 1
            return
        }
        if (operands ~ /^\*/ && memory(substr(operands, 2)) ~ /\(/) access_to(substr(operands, 2))
        forget()
        # LLVM up to 14 leaves the load there for which it has called the hook. Nothing uses what it loads.
        if (leaves_loads && operands ~ /^__tsan_atomic[0-9]+_load/) credit = 1
    } else if (op ~ /^j/) {
        if (operands ~ /^\*/ && memory(substr(operands, 2)) ~ /\(/) access_to(substr(operands, 2))
        else if (credit && used == 0) brought[operands] = credit
        straight = 0
        if (op ~ /^jmp/) forget()
    } else if (op ~ /^(ret|ud2|hlt)/) forget()
    else if (op ~ /^(lea|nop|data16|cs)/ || (op ~ /^(push|pop)/ && operands !~ /\(/)) return
    else if (op ~ /^rep.*(movs|stos|cmps|scas|lods)/) access_to("memory")
    else if (memory(operands) != "") access_to(memory(operands), way_of(op, operands), bytes_of(op), n, op, operands)
}

# Whether an instruction reads its memory operand, writes it, or both: "r", "w" or "rw".
function way_of(op, operands,    last, is_destination) {
    last = operands
    while (match(last, /^[^(,]*(\([^)]*\))?[^(,]*,/)) last = substr(last, RLENGTH + 1)
    is_destination = memory(last) != ""
    if (op ~ /^(cmp|test|bt[lqw]?$|push|mul|div|idiv|ucomi|comi)/ || !is_destination) return "r"
    if (op ~ /^(v?mov|set|pop)/) return "w"
    if (op ~ /^imul/) return "r"
    return "rw"
}

# Bytes of the memory operand of an instruction; 0 if they are not told by its name.
function bytes_of(op) {
    if (op ~ /^set/) return 1
    if (op ~ /^mov[sz][bwl][wlq]$/) op = substr(op, 5, 1)
    else if (op ~ /^(movss|movd)$/) return 4
    else if (op ~ /^(movsd|movabsq?)$/) return 8
    else if (op !~ /^(mov|add|sub|and|or|xor|cmp|test|inc|dec|neg|not|adc|sbb|shl|shr|sar|sal|rol|ror|imul|mul|div|idiv|push|pop|cmov[a-z]+)[bwlq]$/) return 0
    op = substr(op, length(op))
    return op == "b" ? 1 : op == "w" ? 2 : op == "l" ? 4 : 8
}

# ---- Bit-fields ----
#
# Compilers make one announcement where a bit-field is written, and read, change and write what it is in, or write a part
# of that. The hook goes, and each access behind it gets one of its own; an instruction that reads and writes is taken
# apart, since another CPU can come between. A bit-field that is volatile is then announced as an ordinary one.

# Whether an access is none of those that the hooks before it have announced. Of what is read a part may be enough.
function is_another(way, bytes,    i, reads, writes) {
    if (!pending || !way) return 0
    for (i = 1; i <= pending; i++) {
        if (hook_writes[i]) writes = writes || !bytes || !hook_bytes[i] || bytes == hook_bytes[i]
        else reads = reads || !bytes || !hook_bytes[i] || bytes <= hook_bytes[i]
    }
    return way == "r" ? !reads : way == "w" ? !writes : !reads || !writes
}

# A hook for an access, by a function that leaves all registers and flags as they are.
function hook_of(kind, bytes, operand) {
    return "\tpushq\t%rdi\n\tleaq\t" operand ", %rdi\n\tcall\tlab_each_" kind bytes "\n\tpopq\t%rdi\n"
}

# Gives the access of instruction `n` a hook of its own. Says whether that can be done.
function announce_by_itself(n, way, bytes, operand, op, operands,    r, size, scratch, source) {
    if (!bytes || operand ~ /%rsp/) return 0
    if (way != "rw") {
        before[n] = before[n] hook_of(way == "r" ? "read" : "write", bytes, operand)
        return 1
    }
    if (op !~ /^(add|sub|and|or|xor|inc|dec|neg|not)[bwlq]$/) return 0
    size = bytes == 1 ? 1 : bytes == 2 ? 2 : bytes == 4 ? 3 : 4
    for (r = 1; r <= 4; r++) if (operands !~ part_of[r]) break
    if (r > 4) return 0
    scratch = "%" name_of[r, size]
    source = substr(operands, 1, length(operands) - length(operand))
    before[n] = before[n] hook_of("read", bytes, operand) "\tpushq\t%" name_of[r, 4] "\n" \
        "\tmov" substr(op, length(op)) "\t" operand ", " scratch "\n\t" op "\t" source scratch "\n" \
        hook_of("write", bytes, operand) "\tmov" substr(op, length(op)) "\t" scratch ", " operand "\n\tpopq\t%" name_of[r, 4] "\n"
    line[n] = "# " line[n]
    return 1
}

function access_to(operand, way, bytes, n, op, operands,    i) {
    if (operand ~ /\(/ && is_stack(operand)) {
        for (i = 1; i <= pending; i++)
            if (accesses[i] == "" || accesses[i] == operand) done[i] = 1
        return
    }
    if (is_constant(operand)) return
    if (inline) {
        fail("inline assembly accesses " operand ", which a search cannot see; say it in C, with atomics")
        return
    }
    if (operand ~ /%fs:/) {
        fail("a thread-local variable: a guest has none; lab.h has LAB_PER_CPU")
        return
    }
    if (is_another(way, bytes)) {
        if (pending > 1 || used) {
            fail("an access that is not the one which the compiler has announced (" operand "), as of a bit-field: give it bytes of its own")
            return
        }
        line[hook_at[1]] = "# each access has its hook"
        pending = credit = 0
        each_by_itself = 1
    }
    if (each_by_itself) {
        if (!announce_by_itself(n, way, bytes, operand, op, operands))
            fail("an access of a bit-field that cannot be announced (" operand "): give it bytes of its own")
        return
    }
    if (!(operand in operand_of)) {
        operand_of[operand] = 1
        used++
    }
    if (used > credit)
        fail("an access to memory that the compiler has not announced (" operand "): a call takes or returns a structure, or the compiler has moved it; take structures by address, and copy them by assignment or memcpy()")
}
