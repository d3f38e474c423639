%% The OTP supervisor of the benchmark: one port, and so one operating system process, per child.
%%
%% Arguments: number of children, argv of a child. The line "stop" on the standard input stops it,
%% any other is answered with the number of children.
-module(bench_sup).
-behaviour(supervisor).
-export([main/1, init/1, start_child/1, child/2]).

main([Count | Argv]) ->
    register(bench_main, self()),
    process_flag(trap_exit, true),
    Shell = open_port({spawn_executable, "/bin/sh"}, [{args, []}, binary]),
    register(bench_shell, Shell),
    {ok, Supervisor} =
        supervisor:start_link({local, ?MODULE}, ?MODULE, {list_to_integer(Count), Argv}),
    spawn(fun serve/0),
    receive
        {'EXIT', Supervisor, _} -> halt(1);
        stop -> exit(Supervisor, shutdown)
    end,
    receive {'EXIT', Supervisor, _} -> halt(0) end.

serve() ->
    case io:get_line("") of
        eof -> ok;
        "stop\n" -> bench_main ! stop;
        _ ->
            Counts = supervisor:count_children(?MODULE),
            io:format("~p~n", [proplists:get_value(active, Counts)]),
            serve()
    end.

init({Count, Argv}) ->
    Children = [#{id => N, start => {?MODULE, start_child, [Argv]}} || N <- lists:seq(1, Count)],
    {ok, {#{strategy => one_for_one, intensity => 1000000, period => 1}, Children}}.

start_child(Argv) ->
    proc_lib:start_link(?MODULE, child, [self(), Argv]).

child(Parent, [Program | Arguments]) ->
    process_flag(trap_exit, true),
    Port = open_port({spawn_executable, Program}, [{args, Arguments}, exit_status, binary]),
    {os_pid, Pid} = erlang:port_info(Port, os_pid),
    proc_lib:init_ack(Parent, {ok, self()}),
    receive
        {Port, {exit_status, Status}} -> exit({ended, Status});
        {'EXIT', Parent, Reason} ->
            %% One shell sends the signals: os:cmd would start one for each.
            port_command(bench_shell, ["kill ", integer_to_list(Pid), "\n"]),
            receive {Port, {exit_status, _}} -> exit(Reason) after 5000 -> exit(Reason) end
    end.
