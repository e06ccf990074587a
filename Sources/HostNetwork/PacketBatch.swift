// Several packets in or out of a queue with one system call.

