/* lookup_load - load client for Postfix lookup tables, tcp_table(5) and socketmap_table(5).
 *
 * Each of --connections clients has one request in flight, as a Postfix process has; with
 * --reconnect every lookup opens and closes its own TCP connection. The connections are shared
 * out over --threads threads, each with its own epoll. Every answer is compared with what the
 * key must give; one wrong answer fails the run.
 *
 * The caller reads the server's clocks between the phases, so this client
 *   prints "ready" when all connections are open and warm, waits for a line of input,
 *   runs, prints one JSON object, keeps its connections open until its input ends. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { TEXT = 512, REPLY = 4096, BATCH = 64, SLOWEST_US = 100000 };
enum { STALL_MS = 10000 };          /* no answer at all for so long: the server hangs */

static struct {
    struct sockaddr_storage address;
    socklen_t address_length;
    int socketmap, connections, threads, reconnect;
    double seconds, warmup;
    long keys;                      /* 0: every key is new */
    long first;                     /* number of the first new key */
    const char *map, *domain, *key_file;
} setting = {
    .connections = 16, .threads = 16, .seconds = 2, .warmup = 0.3, .keys = 1000,
    .map = "forward", .domain = "forwarder.test",
};

/* a request as sent, and the end that its answer must have */
struct question {
    int request_length, ending_length;
    char request[TEXT], ending[TEXT];
};

struct connection {
    struct worker *worker;
    int fd;                         /* -1: closed */
    int connecting, asking;
    int reply_length;
    int64_t asked_at;               /* ns; before the connect with --reconnect */
    const struct question *question;
    struct question own;            /* storage when every key is new */
    char reply[REPLY];
};

struct worker {                     /* a thread */
    pthread_t thread;
    struct connection *connections;
    int count, epoll_fd, in_flight;
    long next_key;                  /* each thread takes every setting.threads-th key */
    unsigned next_source;
    long lookups, answered, errors;
    uint32_t by_us[SLOWEST_US + 1]; /* latencies in whole microseconds; the last takes the rest */
};

static struct question *questions;
static struct worker *workers;
static pthread_barrier_t barrier;   /* the threads and main, between the phases */
static const char *beginning;       /* of every right answer */
static int beginning_length, exact;
static pthread_mutex_t error_lock = PTHREAD_MUTEX_INITIALIZER;
static char first_error[400];

static void die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(2);
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

/* ---- questions and answers ---- */

static void ask_for(struct question *q, const char *key)
{
    if (setting.socketmap)
        q->request_length = snprintf(q->request, TEXT, "%zu:%s %s,", strlen(setting.map) + 1 + strlen(key),
                                     setting.map, key);
    else
        q->request_length = snprintf(q->request, TEXT, "get %s\n", key);
    if (q->request_length >= TEXT)
        die("key too long: %.80s", key);
}

/* The senders come from 1,000 domains, however many addresses there are. */
static void forward_question(struct question *q, long number)
{
    char key[TEXT];
    snprintf(key, sizeof key, "user%ld@sender%ld.example", number, number % 1000);
    ask_for(q, key);
    q->ending_length = snprintf(q->ending, TEXT, "=sender%ld.example=user%ld@%s%c", number % 1000, number,
                                setting.domain, setting.socketmap ? ',' : '\n');
}

/* lines "KEY ANSWER" */
static void read_key_file(void)
{
    FILE *f = fopen(setting.key_file, "r");
    char key[TEXT - 64], answer[TEXT - 64];
    if (!f)
        die("%s: %s", setting.key_file, strerror(errno));
    for (setting.keys = 0; fscanf(f, "%447s %447s", key, answer) == 2; setting.keys++) {
        questions = realloc(questions, (setting.keys + 1) * sizeof *questions);
        struct question *q = &questions[setting.keys];
        ask_for(q, key);
        q->ending_length = snprintf(q->ending, TEXT, "%s%c", answer, setting.socketmap ? ',' : '\n');
    }
    fclose(f);
    if (!setting.keys)
        die("%s: no keys", setting.key_file);
}

static void make_questions(void)
{
    exact = setting.key_file != 0;
    if (exact)
        read_key_file();
    else {
        questions = calloc(setting.keys + 1, sizeof *questions);
        for (long i = 0; i < setting.keys; i++)
            forward_question(&questions[i], i);
    }
    beginning = setting.socketmap ? (exact ? "OK " : "OK SRS0=") : (exact ? "200 " : "200 SRS0=");
    beginning_length = strlen(beginning);
}

static const struct question *next_question(struct connection *c)
{
    long number = c->worker->next_key;
    c->worker->next_key += setting.threads;
    if (setting.keys)
        return &questions[number % setting.keys];
    forward_question(&c->own, setting.first + number);
    return &c->own;
}

/* length of a whole reply, 0 while it is incomplete, -1 when it is none */
static int whole_reply(const struct connection *c)
{
    if (!setting.socketmap) {
        const char *end = memchr(c->reply, '\n', c->reply_length);
        return end ? end - c->reply + 1 : 0;
    }
    int length = 0, i = 0;
    while (i < c->reply_length && i < 5 && c->reply[i] >= '0' && c->reply[i] <= '9')
        length = length * 10 + c->reply[i++] - '0';
    if (i == c->reply_length)
        return 0;
    if (!i || c->reply[i] != ':')
        return -1;
    length += i + 2;                /* digits, colon, text, comma */
    return c->reply_length < length ? 0 : length;
}

static int right_reply(const struct connection *c)
{
    const struct question *q = c->question;
    const char *text = c->reply;
    int length = c->reply_length, known = beginning_length + q->ending_length;
    if (setting.socketmap) {
        const char *colon = memchr(text, ':', length);
        length -= colon + 1 - text;
        text = colon + 1;
    }
    return (exact ? length == known : length > known) && !memcmp(text, beginning, beginning_length) &&
           !memcmp(text + length - q->ending_length, q->ending, q->ending_length);
}

/* ---- connections ---- */

static void close_connection(struct connection *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    c->worker->in_flight -= c->asking;
    c->asking = 0;
}

/* The connection stays closed: the run has failed anyway. */
static void fail(struct connection *c, const char *what)
{
    pthread_mutex_lock(&error_lock);
    if (!first_error[0])
        snprintf(first_error, sizeof first_error, "%s; asked %.*s got %.*s", what,
                 c->question ? c->question->request_length : 0, c->question ? c->question->request : "",
                 c->reply_length < 100 ? c->reply_length : 100, c->reply);
    pthread_mutex_unlock(&error_lock);
    c->worker->errors++;
    close_connection(c);
}

static void open_connection(struct connection *c)
{
    struct epoll_event e = {.events = EPOLLOUT, .data.ptr = c};
    c->connecting = 1;
    c->fd = socket(setting.address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        die("socket: %s", strerror(errno));
    if (setting.reconnect) {
        /* A closed connection keeps its port for a minute: many source addresses never run out. */
        struct sockaddr_in source = {.sin_family = AF_INET};
        int one = 1;
        source.sin_addr.s_addr = htonl(0x7f000101 + c->worker->next_source++ % 250);
        setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
        if (bind(c->fd, (void *)&source, sizeof source))
            die("bind: %s", strerror(errno));
    }
    if (connect(c->fd, (void *)&setting.address, setting.address_length) && errno != EINPROGRESS)
        fail(c, strerror(errno));
    else if (epoll_ctl(c->worker->epoll_fd, EPOLL_CTL_ADD, c->fd, &e))
        die("epoll_ctl: %s", strerror(errno));
}

static void send_question(struct connection *c)
{
    const struct question *q = c->question;
    c->reply_length = 0;
    ssize_t sent = send(c->fd, q->request, q->request_length, MSG_NOSIGNAL);
    if (sent != q->request_length)
        fail(c, sent < 0 ? strerror(errno) : "partial send");
}

static void ask(struct connection *c)
{
    c->question = next_question(c);
    c->asked_at = now_ns();
    c->asking = 1;
    c->worker->in_flight++;
    if (c->fd < 0)
        open_connection(c);         /* connected() sends */
    else
        send_question(c);
}

static void connected(struct connection *c)
{
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
    int error = 0;
    socklen_t length = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &length);
    if (error) {
        fail(c, strerror(error));
        return;
    }
    c->connecting = 0;
    epoll_ctl(c->worker->epoll_fd, EPOLL_CTL_MOD, c->fd, &e);
    if (c->asking)
        send_question(c);
}

/* 1: the question is answered, and rightly */
static int receive(struct connection *c)
{
    ssize_t n = recv(c->fd, c->reply + c->reply_length, REPLY - c->reply_length, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n <= 0) {
        fail(c, n ? strerror(errno) : "the server closed the connection");
        return 0;
    }
    c->reply_length += n;
    int whole = whole_reply(c);
    if (!whole && c->reply_length < REPLY)
        return 0;
    if (!c->asking || whole != c->reply_length || !right_reply(c)) {
        fail(c, "wrong answer");
        return 0;
    }
    c->asking = 0;
    c->worker->in_flight--;
    return 1;
}

/* ---- phases ---- */

static void connect_all(struct worker *w)
{
    struct epoll_event events[BATCH];
    for (int i = 0; i < w->count; i++)
        open_connection(&w->connections[i]);
    for (int open = 0; open < w->count && !w->errors;) {
        int n = epoll_wait(w->epoll_fd, events, BATCH, STALL_MS);
        if (!n)
            die("no connection within %d ms", STALL_MS);
        for (int i = 0; i < n; i++, open++)
            connected(events[i].data.ptr);
    }
}

/* Asks until the time is over, then waits for what is in flight. lookups counts the answers in
 * time; answered also the late ones, for the server has worked for those as well. */
static void run(struct worker *w, double seconds)
{
    struct epoll_event events[BATCH];
    int64_t deadline = now_ns() + (int64_t)(seconds * 1e9);
    for (int i = 0; i < w->count; i++)
        if (setting.reconnect || w->connections[i].fd >= 0)
            ask(&w->connections[i]);
    while (w->in_flight) {
        int n = epoll_wait(w->epoll_fd, events, BATCH, STALL_MS);
        for (int i = 0; !n && i < w->count; i++)
            if (w->connections[i].asking)
                fail(&w->connections[i], "no answer in time");
        for (int i = 0; i < n; i++) {
            struct connection *c = events[i].data.ptr;
            if (c->connecting) {
                connected(c);
                continue;
            }
            if (!receive(c))
                continue;
            int64_t now = now_ns(), us = (now - c->asked_at) / 1000;
            w->answered++;
            if (setting.reconnect)
                close_connection(c);
            if (now >= deadline)
                continue;
            w->lookups++;
            w->by_us[us < SLOWEST_US ? us : SLOWEST_US]++;
            ask(c);
        }
    }
}

static void *work(void *argument)
{
    struct worker *w = argument;
    if (!setting.reconnect)
        connect_all(w);
    if (!w->errors && setting.warmup > 0)
        run(w, setting.warmup);
    w->lookups = w->answered = 0;
    memset(w->by_us, 0, sizeof w->by_us);
    pthread_barrier_wait(&barrier);     /* ready */
    pthread_barrier_wait(&barrier);     /* go */
    if (!w->errors)
        run(w, setting.seconds);
    pthread_barrier_wait(&barrier);     /* done */
    return 0;
}

static void start_workers(void)
{
    workers = calloc(setting.threads, sizeof *workers);
    pthread_barrier_init(&barrier, 0, setting.threads + 1);
    for (int i = 0; i < setting.threads; i++) {
        struct worker *w = &workers[i];
        w->count = setting.connections / setting.threads + (i < setting.connections % setting.threads);
        w->connections = calloc(w->count, sizeof *w->connections);
        w->next_key = w->next_source = i;
        w->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
        for (int k = 0; k < w->count; k++)
            w->connections[k] = (struct connection){.worker = w, .fd = -1};
        if (w->epoll_fd < 0 || pthread_create(&w->thread, 0, work, w))
            die("cannot start a thread: %s", strerror(errno));
    }
}

/* ---- report ---- */

static long percentile_us(long lookups, double percent)
{
    long rank = lookups * percent / 100, sum = 0;
    for (long us = 0; us < SLOWEST_US; us++) {
        for (int i = 0; i < setting.threads; i++)
            sum += workers[i].by_us[us];
        if (sum > rank)
            return us;
    }
    return SLOWEST_US;
}

static double own_cpu(void)
{
    struct rusage r;
    getrusage(RUSAGE_SELF, &r);
    return r.ru_utime.tv_sec + r.ru_stime.tv_sec + (r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6;
}

static long print_result(double cpu)
{
    long lookups = 0, answered = 0, errors = 0, next_key = 0;
    for (int i = 0; i < setting.threads; i++) {
        lookups += workers[i].lookups;
        answered += workers[i].answered;
        errors += workers[i].errors;
        if (workers[i].next_key > next_key)
            next_key = workers[i].next_key;
    }
    printf("{\"lookups\": %ld, \"seconds\": %g, \"answered\": %ld, \"errors\": %ld, \"p50_us\": %ld, "
           "\"p99_us\": %ld, \"client_cpu_seconds\": %.4f, \"next_key\": %ld, \"first_error\": \"",
           lookups, setting.seconds, answered, errors, percentile_us(lookups, 50), percentile_us(lookups, 99),
           cpu, setting.first + next_key);
    for (const char *p = first_error; *p; p++)
        putchar(*p < ' ' || *p == '"' || *p == '\\' || *p == 127 ? '?' : *p);
    puts("\"}");
    fflush(stdout);
    return errors;
}

static void wait_for_caller(void)
{
    int c;
    while ((c = getchar()) != '\n' && c != EOF)
        ;
}

/* ---- command line ---- */

static void parse_address(const char *text)
{
    char host[64];
    int port;
    if (!strncmp(text, "unix:", 5) && strlen(text + 5) < sizeof((struct sockaddr_un *)0)->sun_path) {
        struct sockaddr_un *u = (void *)&setting.address;
        u->sun_family = AF_UNIX;
        strcpy(u->sun_path, text + 5);
        setting.address_length = sizeof *u;
        return;
    }
    struct sockaddr_in *in = (void *)&setting.address;
    in->sin_family = AF_INET;
    if (sscanf(text, "inet:%63[0-9.]:%d", host, &port) != 2 || inet_pton(AF_INET, host, &in->sin_addr) != 1)
        die("bad address %s: inet:IPV4:PORT or unix:PATH", text);
    in->sin_port = htons(port);
    setting.address_length = sizeof *in;
}

static void parse_options(int argc, char **argv)
{
    enum { ADDRESS, SOCKETMAP, MAP, CONNECTIONS, THREADS, SECONDS, WARMUP, KEYS, FIRST, DOMAIN, KEY_FILE, RECONNECT };
    static const struct option known[] = {
        {"address", 1, 0, ADDRESS},   {"socketmap", 0, 0, SOCKETMAP}, {"map", 1, 0, MAP},
        {"threads", 1, 0, THREADS},   {"seconds", 1, 0, SECONDS},     {"connections", 1, 0, CONNECTIONS},
        {"keys", 1, 0, KEYS},         {"warmup", 1, 0, WARMUP},       {"first", 1, 0, FIRST},
        {"domain", 1, 0, DOMAIN},     {"key-file", 1, 0, KEY_FILE},   {"reconnect", 0, 0, RECONNECT},
        {0}};
    int o;
    while ((o = getopt_long(argc, argv, "", known, 0)) >= 0)
        switch (o) {
        case ADDRESS: parse_address(optarg); break;
        case SOCKETMAP: setting.socketmap = 1; break;
        case MAP: setting.map = optarg; break;
        case CONNECTIONS: setting.connections = atoi(optarg); break;
        case THREADS: setting.threads = atoi(optarg); break;
        case SECONDS: setting.seconds = atof(optarg); break;
        case WARMUP: setting.warmup = atof(optarg); break;
        case KEYS: setting.keys = atol(optarg); break;
        case FIRST: setting.first = atol(optarg); break;
        case DOMAIN: setting.domain = optarg; break;
        case KEY_FILE: setting.key_file = optarg; break;
        case RECONNECT: setting.reconnect = 1; break;
        default: exit(2);
        }
    if (!setting.address_length || setting.connections < 1 || setting.threads < 1 || setting.seconds <= 0 ||
        setting.keys < 0 || optind != argc)
        die("usage: lookup_load --address inet:IPV4:PORT|unix:PATH [--socketmap [--map forward]]\n"
            "  [--connections 16] [--threads 16] [--seconds 2] [--warmup 0.3] [--domain forwarder.test]\n"
            "  [--keys 1000 | --keys 0 (every key new) [--first 0] | --key-file FILE] [--reconnect (inet only)]");
    if (setting.reconnect && setting.address.ss_family != AF_INET)
        die("--reconnect needs an inet address");
    if (setting.threads > setting.connections)
        setting.threads = setting.connections;
}

int main(int argc, char **argv)
{
    parse_options(argc, argv);
    make_questions();
    start_workers();
    pthread_barrier_wait(&barrier);     /* ready */
    puts("ready");
    fflush(stdout);
    wait_for_caller();
    double cpu = own_cpu();
    pthread_barrier_wait(&barrier);     /* go */
    pthread_barrier_wait(&barrier);     /* done */
    long errors = print_result(own_cpu() - cpu);
    wait_for_caller();
    return errors ? 1 : 0;
}
