-- The methods with a finished run, and the study's composite of each where it is known.
select method, any_value(method_title) as title, max(usability) as usability
from runs
group by method
order by method
