// What ps(1) shows of this process.

#if canImport(Glibc)
    internal import Glibc
#endif

public enum ProcessTitle {
    /// Replaces the last of this process's arguments that is `word` in what `/proc/self/cmdline` shows. `CommandLine`
    /// keeps what it has read before.
    /// - Parameter title: as much of it as `word` is long.
    public static func replace(_ word: String, with title: String) {
        for index in (1..<max(1, Int(CommandLine.argc))).reversed() {
            // SAFETY: argv has argc strings, which are the program's to change (C 5.1.2.2.1); nobody else here does.
            guard let argument = unsafe CommandLine.unsafeArgv[index], unsafe strcmp(argument, word) == 0 else {
                continue
            }
            unsafe strncpy(argument, title, word.utf8.count)
            return
        }
    }
}
